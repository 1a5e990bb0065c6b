import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { type CheckpointModel, openCheckpointModel } from "../checkpoint/open.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { memoryFolder, memoryOutput } from "../files/memory.js";
import { quantize } from "../pipeline/job.js";
import { describeShape, inspectCheckpoint } from "./inspection.js";

const FIXTURE = "test/golden/families/llama-gqa-llama3-tied";
const files = new Map(
  ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(`${FIXTURE}/${name}`))]),
);
let plain: CheckpointModel;
let quantized: CheckpointModel;

beforeAll(async () => {
  plain = await openCheckpointModel(memoryFolder("plain", files));
  const output = memoryOutput();
  const overrides = [{ match: "*.mlp.*", keep: true }];
  await quantize(plain, { method: "rtn", bits: 2, group: 16, overrides }, { engine: createReferenceEngine(), output });
  quantized = await openCheckpointModel(memoryFolder("quantized", output.files));
});

describe("inspectCheckpoint", () => {
  it("counts every bit of a plain checkpoint", async () => {
    const { bits, parameters, linears, fileBytes, format } = await inspectCheckpoint(plain);
    const elements = plain.tensors.names.reduce(
      (sum, name) => sum + (plain.tensors.info(name)?.shape.reduce((a, b) => a * b, 1) ?? 0),
      0,
    );
    const stored = (plain.tensors.info(plain.tensors.names[0])?.bytes ?? 0) * 8;
    const width = stored / (plain.tensors.info(plain.tensors.names[0])?.shape.reduce((a, b) => a * b, 1) ?? 1);
    expect(format).toBe("plain");
    expect(parameters).toBe(elements);
    expect(bits).toMatchObject({ linears: width, withEmbeddings: width, withoutEmbeddings: width });
    expect(bits.files).toBeCloseTo((8 * (files.get("model.safetensors")?.length ?? 0)) / elements, 10);
    expect(fileBytes).toBe(files.get("model.safetensors")?.length);
    expect(linears.every((linear) => !linear.quantized)).toBe(true);
  });

  it("tells quantized linears from kept ones, with what was recorded of them", async () => {
    const { bits, linears, format } = await inspectCheckpoint(quantized);
    expect(format).toBe("bitwright");
    const kept = linears.filter((linear) => linear.name.includes(".mlp."));
    const done = linears.filter((linear) => !linear.name.includes(".mlp."));
    expect(kept.every((linear) => !linear.quantized && linear.proxyError === undefined)).toBe(true);
    for (const linear of done) {
      expect(linear).toMatchObject({ quantized: true, method: "rtn", stored: "2 bits, groups of 16" });
      // 2 bits a code, and a 16-bit scale and a 2-bit zero a group of 16
      expect(linear.bitsPerWeight).toBeCloseTo(2 + 18 / 16, 10);
      expect(linear.proxyError).toBeGreaterThan(0);
    }
    const weights = linears.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    const all = linears.reduce((sum, { rows, columns, bitsPerWeight }) => sum + rows * columns * bitsPerWeight, 0);
    expect(bits.linears).toBeCloseTo(all / weights, 10);
    expect(bits.withoutEmbeddings).toBeLessThan(bits.withEmbeddings);
  });
});

describe("describeShape", () => {
  const segment = (columns: number, ...codewords: number[]) => ({ columns, vectorLength: 4, codewords });
  const books = { kind: "codebook" as const, rows: 8, columns: 64, columnOrder: false, columnScale: false };
  const rest = { ...books, columnBias: false, rowScale: false, bias: false };

  it("is a few words", () => {
    expect(describeShape({ ...rest, hasOutliers: false, segments: [segment(64, 256)] })).toBe("v4 k256");
    expect(
      describeShape({
        ...rest,
        hasOutliers: true,
        segments: [segment(2, 16), segment(31, 256, 64), segment(31, 256, 64)],
      }),
    ).toBe("v4 k256 + 64, 2 groups, outliers 2 x v4 k16");
    const affine = { kind: "affine" as const, rows: 8, columns: 64, bits: 3, bias: false };
    expect(describeShape({ ...affine, group: 64, symmetric: true })).toBe("3 bits, a group a row, symmetric");
  });
});
