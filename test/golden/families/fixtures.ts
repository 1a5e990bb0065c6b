import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseModelConfig } from "../../../src/model/config.js";
import { checkShape, findKey, missingTensor, type WeightSource } from "../../../src/model/weights.js";
import { f16ToF32 } from "../../../src/tensor/index.js";

// Reads what make.py wrote, without the files layer: a small reader of safetensors for trusted files.

const ROOT = fileURLToPath(new URL(".", import.meta.url));

export const FIXTURES = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .sort();

export const readJson = (fixture: string, name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(`${ROOT}${fixture}/${name}`, "utf8"));

export const fixtureConfig = (fixture: string, file = "config.json") => parseModelConfig(readJson(fixture, file), file);

/** Tokens [B][T] and the logits [B, T, V] that transformers computed. */
export function expectedLogits(fixture: string): { tokens: number[][]; shape: number[]; logits: Float32Array } {
  const { tokens, shape, logits } = readJson(fixture, "expected.json") as {
    tokens: number[][];
    shape: number[];
    logits: string;
  };
  const bytes = Uint8Array.from(Buffer.from(logits, "base64"));
  return { tokens, shape, logits: new Float32Array(bytes.buffer) };
}

/** The fixture's weights; `reads` counts how often each tensor was read. */
export function fixtureWeights(fixture: string): WeightSource & { reads: Map<string, number> } {
  const file = readFileSync(`${ROOT}${fixture}/model.safetensors`);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    file.toString("utf8", 8, start),
  );
  const find = (name: string) => findKey(name, (key) => Object.hasOwn(header, key));
  const reads = new Map<string, number>();
  return {
    reads,
    has: (name) => find(name) !== undefined,
    shape: (name) => header[find(name) ?? ""]?.shape,
    async read(name, shape) {
      const key = find(name);
      if (key === undefined) throw missingTensor(name, fixture);
      checkShape(name, header[key].shape, shape);
      reads.set(name, (reads.get(name) ?? 0) + 1);
      const [begin, end] = header[key].data_offsets;
      const bytes = Uint8Array.from(file.subarray(start + begin, start + end));
      return header[key].dtype === "F16" ? f16ToF32(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
    },
  };
}
