import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Folder } from "../../../src/files/folder.js";
import { memorySource } from "../../../src/files/memory.js";
import { openSafetensors } from "../../../src/files/safetensors.js";
import type { TensorReader } from "../../../src/files/tensors.js";
import { openFolder } from "../../../src/node/folder.js";
import type { AffineRecord, RecordStorage } from "../../../src/quant/record.js";

// What make.py wrote with the packers of gptqmodel and compressed-tensors.

const ROOT = fileURLToPath(new URL(".", import.meta.url));

export interface PackedCase {
  name: string;
  layout: "gptq" | "gptq_v2" | "pack-quantized" | "int-quantized";
  rows: number;
  columns: number;
  bits: number;
  group: number;
  symmetric: boolean;
}

export const CASES = JSON.parse(readFileSync(`${ROOT}cases.json`, "utf8")) as PackedCase[];

export const MODELS = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !entry.name.startsWith("_"))
  .map((entry) => entry.name)
  .sort();

export const openPacked = (): Promise<TensorReader> =>
  openSafetensors(memorySource("packed.safetensors", new Uint8Array(readFileSync(`${ROOT}packed.safetensors`))));

export const modelFolder = (name: string): Promise<Folder> => openFolder(`${ROOT}${name}`);

export function modelLogits(name: string): { tokens: number[][]; shape: number[]; logits: Float32Array } {
  const { tokens, shape, logits } = JSON.parse(readFileSync(`${ROOT}${name}/expected.json`, "utf8")) as {
    tokens: number[][];
    shape: number[];
    logits: string;
  };
  return { tokens, shape, logits: new Float32Array(Uint8Array.from(Buffer.from(logits, "base64")).buffer) };
}

/** What the packer of a case was given. */
export async function givenRecord(packed: TensorReader, given: PackedCase): Promise<AffineRecord> {
  const { name, rows, columns, bits, group, symmetric } = given;
  const groups = packed.info(`${name}:group`) ? await packed.readRaw(`${name}:group`) : undefined;
  const bias = packed.info(`${name}/bias`) ? await packed.readF32(`${name}/bias`) : undefined;
  return {
    kind: "affine",
    storage: packed.info(`${name}:scale`)?.dtype as RecordStorage,
    rows,
    columns,
    bits,
    symmetric,
    group,
    codes: await packed.readRaw(`${name}:codes`),
    scale: await packed.readF32(`${name}:scale`),
    zero: await packed.readRaw(`${name}:zero`),
    ...(groups ? { groupOfColumn: new Int32Array(groups.slice().buffer) } : {}),
    ...(bias ? { bias } : {}),
  };
}
