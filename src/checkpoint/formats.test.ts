import { describe, expect, it } from "vitest";
import { CONFIG, jsonOf, refusal, text } from "../../test/checkpoints.js";
import type { Folder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";
import { memoryFolder, memoryOutput } from "../files/memory.js";
import { type OutgoingTensor, writeCheckpointTensors } from "../files/safetensors-writer.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { blockLinears } from "../model/block.js";
import { parseModelConfig } from "../model/config.js";
import type { CheckpointFormat, RecordShape } from "../quant/bits.js";
import type { AffineRecord } from "../quant/record.js";
import { f32ToF16, roundToF16 } from "../tensor/index.js";
import { exportCheckpoint, planExport } from "./export.js";
import { activationsRefusal, linearRefusal } from "./formats.js";
import { openCheckpointModel } from "./open.js";
import { writeQuantizedCheckpoint } from "./write.js";

/** A LLaMA whose linears fit the packings of 32. */
const LLAMA: JsonObject = {
  ...CONFIG,
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 96,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  torch_dtype: "float16",
};
const MODEL = parseModelConfig(LLAMA);
const LINEARS = [0, 1].flatMap((index) => blockLinears(MODEL, index));

async function llama(config = LLAMA): Promise<Folder> {
  const tensors: OutgoingTensor[] = [];
  const add = (name: string, shape: number[]) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i + shape[0]));
    tensors.push({ name, dtype: "f16", shape, read: async () => new Uint8Array(f32ToF16(values).buffer) });
  };
  add("model.embed_tokens.weight", [9, 64]);
  for (const { name, rows, columns } of LINEARS) add(`${name}.weight`, [rows, columns]);
  for (const layer of [0, 1]) {
    add(`model.layers.${layer}.input_layernorm.weight`, [64]);
    add(`model.layers.${layer}.post_attention_layernorm.weight`, [64]);
  }
  add("model.norm.weight", [64]);
  add("lm_head.weight", [9, 64]);
  const output = memoryOutput();
  await writeCheckpointTensors(output, tensors);
  await output.commit();
  output.files.set("config.json", text(config));
  return memoryFolder("llama", output.files);
}

function affine(rows: number, columns: number, parts: Partial<AffineRecord> = {}): AffineRecord {
  const { bits = 4, group = 32, symmetric = true } = parts;
  const groups = rows * Math.ceil(columns / group);
  return {
    kind: "affine",
    storage: "f16",
    rows,
    columns,
    bits,
    symmetric,
    group,
    codes: Uint8Array.from({ length: rows * columns }, (_, i) => (i * 7) % 2 ** bits),
    scale: Float32Array.from({ length: groups }, (_, i) => roundToF16(0.01 + i / 1e4)),
    zero: new Uint8Array(groups).fill(2 ** (bits - 1)),
    ...parts,
  };
}

interface WriteOptions {
  format: CheckpointFormat;
  activations?: ActivationScheme;
  names?: string[];
  make?: (rows: number, columns: number, name: string) => AffineRecord;
}

async function write({ format, activations, names, make = (rows, columns) => affine(rows, columns) }: WriteOptions) {
  const source = await openCheckpointModel(await llama());
  const output = memoryOutput();
  const byName = new Map(LINEARS.map((spec) => [spec.name, spec]));
  const written = await writeQuantizedCheckpoint({
    source,
    output,
    format,
    activations,
    names: names ?? LINEARS.map(({ name }) => name),
    record: async (name) => {
      const { rows, columns } = byName.get(name) ?? expect.unreachable();
      return make(rows, columns, name);
    },
  });
  const folder = memoryFolder("out", output.files);
  const quantization = jsonOf(output, "config.json").quantization_config as JsonObject;
  return { written, output, folder, quantization };
}

describe("what a format cannot hold", () => {
  const shape: RecordShape = {
    kind: "affine",
    rows: 64,
    columns: 96,
    bits: 4,
    group: 32,
    symmetric: true,
    bias: false,
  };
  const codebook: RecordShape = {
    ...{ kind: "codebook", rows: 64, columns: 96, hasOutliers: false, columnOrder: false, columnScale: false },
    ...{ columnBias: false, rowScale: false, bias: false },
    segments: [{ columns: 96, vectorLength: 4, codewords: [16] }],
  } as RecordShape;

  it.each<[CheckpointFormat, Partial<RecordShape>, RegExp, RegExp]>([
    ["gptq_v2", { bits: 6 }, /no codes of 6 bits/, /--bits 2, 3, 4, 8/],
    ["gptq", { symmetric: false }, /a zero of 0 would be lost/, /gptq_v2/],
    ["gptq_v2", { rows: 40 }, /40 x 96 is no multiple/, /bitwright/],
    ["gptq_v2", { columns: 80, group: 16 }, /64 x 80 is no multiple/, /bitwright/],
    ["gptq_v2", { group: 24 }, /no groups of 24 columns/, /--group 16, 32 or channel/],
    [
      "gptq_v2",
      { group: 64, symmetric: false },
      /groups of 64 do not divide 96/,
      /--group 16, 32 or channel; or --symmetric/,
    ],
    ["compressed-tensors", { group: 64 }, /groups of 64 do not divide 96/, /--group 16, 32 or channel/],
    ["compressed-tensors", { columnGroups: true }, /act-order/, /gptq_v2/],
    ["vptq", {}, /codebooks only/, /bitwright/],
  ])("%s: %o", (format, part, reason, remedy) => {
    const refused = linearRefusal(format, "l", { ...shape, ...part } as RecordShape, undefined);
    expect(refused?.reason).toMatch(reason);
    expect(refused?.remedy).toMatch(remedy);
  });

  it.each(["gptq", "gptq_v2", "compressed-tensors"] as const)("%s: codebooks", (format) => {
    expect(linearRefusal(format, "l", codebook, undefined)?.reason).toMatch(/^l: .*no codebooks/);
  });

  it("what fits is not refused", () => {
    for (const format of ["gptq", "gptq_v2", "compressed-tensors", "bitwright"] as const)
      expect(linearRefusal(format, "l", shape, undefined)).toBeUndefined();
    expect(linearRefusal("gptq", "l", { ...shape, group: 64 }, undefined)).toBeUndefined(); // a short last group
    expect(linearRefusal("compressed-tensors", "l", { ...shape, bits: 6 }, undefined)).toBeUndefined();
    expect(linearRefusal("bitwright", "l", { ...shape, bits: 6, rows: 3, group: 64 }, undefined)).toBeUndefined();
  });

  const facts = { keepsLinears: false, fusedAttention: false };
  it.each<[CheckpointFormat, ActivationScheme, Partial<typeof facts>, RegExp]>([
    ["gptq", { input: 8 }, {}, /--activations, --kv/],
    ["vptq", { key: 8, value: 8 }, {}, /--activations, --kv/],
    [
      "compressed-tensors",
      { input: 8, query: 8, key: 4, value: 4 },
      {},
      /a query of 8 bits, keys of 4 and values of 4/,
    ],
    ["compressed-tensors", { input: 4, query: 4 }, {}, /a query of 4 bits, keys of 16/],
    ["compressed-tensors", { input: 8 }, { keepsLinears: true }, /kept as they are/],
    ["compressed-tensors", { key: 8, value: 8 }, { fusedAttention: true }, /fused query_key_value/],
  ])("%s: activations %o, %o", (format, scheme, part, reason) => {
    expect(activationsRefusal(format, scheme, { ...facts, ...part })?.reason).toMatch(reason);
  });
  it("activations that fit are not refused", () => {
    for (const scheme of [{ input: 4, query: 4, key: 4, value: 4 }, { input: 8 }, { key: 8, value: 8 }])
      expect(activationsRefusal("compressed-tensors", scheme, facts)).toBeUndefined();
    expect(activationsRefusal("bitwright", { input: 8, query: 8, key: 4, value: 4 }, facts)).toBeUndefined();
    expect(activationsRefusal("gptq", undefined, { keepsLinears: true, fusedAttention: true })).toBeUndefined();
  });

  it("the writer refuses it with the linear's name, and leaves nothing", async () => {
    const error = await refusal(write({ format: "gptq", make: (o, i) => affine(o, i, { symmetric: false }) }));
    expect(error).toMatchObject({ kind: "usage", remedy: expect.stringMatching(/gptq_v2/) as string });
    expect(error.message).toMatch(/version 1, cannot hold model.layers.0.self_attn.q_proj: it stores zeros less one/);
    const scattered = (rows: number, columns: number) =>
      affine(rows, columns, { groupOfColumn: Int32Array.from({ length: columns }, (_, i) => i % (columns / 32)) });
    expect((await refusal(write({ format: "compressed-tensors", make: scattered }))).message).toMatch(/act-order/);
    const { folder } = await write({ format: "gptq_v2", make: scattered });
    const record = await (await openCheckpointModel(folder)).record(LINEARS[0].name);
    expect(record).toMatchObject({ groupOfColumn: scattered(64, 64).groupOfColumn });
  });
});

describe("what config.json says", () => {
  const others = (rows: number, columns: number, name: string) =>
    name.endsWith("down_proj") ? affine(rows, columns, { bits: 8, group: columns }) : affine(rows, columns);
  const kept = LINEARS.map(({ name }) => name).filter((name) => !name.endsWith("1.mlp.up_proj"));

  it("gptq: what most have, the others and those left alone by name", async () => {
    const { quantization, output, folder } = await write({ format: "gptq", names: kept, make: others });
    expect(quantization).toMatchObject({
      ...{ quant_method: "gptq", checkpoint_format: "gptq", bits: 4, group_size: 32, sym: true, desc_act: false },
      dynamic: {
        "-:^model\\.layers\\.1\\.mlp\\.up_proj$": {},
        "+:^model\\.layers\\.0\\.mlp\\.down_proj$": { bits: 8, group_size: -1, sym: true },
        "+:^model\\.layers\\.1\\.mlp\\.down_proj$": { bits: 8, group_size: -1, sym: true },
      },
    });
    expect(jsonOf(output, "quantize_config.json")).toEqual(quantization);
    const back = await openCheckpointModel(folder);
    expect(back.layers.map(({ name }) => name).sort()).toEqual([...kept].sort());
  });

  it("gptq: in a quantize_config.json alone, as older programs left it", async () => {
    const { output } = await write({ format: "gptq" });
    const { quantization_config: _, ...config } = jsonOf(output, "config.json");
    output.files.set("config.json", text(config));
    const back = await openCheckpointModel(memoryFolder("old", output.files));
    expect(back.format).toBe("gptq");
    expect(back.layers.length).toBe(LINEARS.length);
  });

  it("compressed-tensors: one group of targets for each kind, and what is left alone", async () => {
    const { quantization, folder } = await write({ format: "compressed-tensors", names: kept, make: others });
    expect(quantization).toMatchObject({ format: "pack-quantized", ignore: ["lm_head", "model.layers.1.mlp.up_proj"] });
    const groups = Object.values(quantization.config_groups as JsonObject) as JsonObject[];
    expect(groups.map(({ targets }) => (targets as string[]).length)).toEqual([11, 2]);
    expect(groups[1]).toMatchObject({ weights: { num_bits: 8, strategy: "channel", group_size: null } });
    expect((await openCheckpointModel(folder)).layers.length).toBe(kept.length);
  });

  it.each<[string, ActivationScheme, Partial<AffineRecord>, string]>([
    ["packed codes beside 8-bit inputs", { input: 8, symmetric: true }, {}, "pack-quantized"],
    ["8 bits beside 8-bit inputs", { input: 8, symmetric: true }, { bits: 8 }, "int-quantized"],
    ["asymmetric codes", { input: 4, query: 4, key: 4, value: 4 }, { symmetric: false }, "int-quantized"],
    ["a cache alone", { key: 8, value: 8 }, {}, "pack-quantized"],
  ])("compressed-tensors: activations, %s", async (_what, activations, parts, format) => {
    const make = (rows: number, columns: number) => affine(rows, columns, parts);
    const { quantization, folder } = await write({ format: "compressed-tensors", activations, make });
    expect(quantization.format).toBe(format);
    const back = await openCheckpointModel(folder);
    expect(back.activations).toEqual({ symmetric: false, ...activations });
    const { name, rows, columns } = LINEARS[0];
    expect(await back.record(name)).toEqual(make(rows, columns));
    // and the same from there to our own
    const output = memoryOutput();
    await exportCheckpoint({ source: back, output, format: "bitwright" });
    expect((await openCheckpointModel(memoryFolder("own", output.files))).activations).toEqual(back.activations);
  });

  it("bitwright: activations", async () => {
    const activations = { input: 4, query: 6, key: 8, value: 8 };
    const { folder } = await write({ format: "bitwright", activations });
    expect((await openCheckpointModel(folder)).activations).toEqual(activations);
  });
});

describe("biases", () => {
  const withBias = (chosen: RegExp) => (rows: number, columns: number, name: string) =>
    affine(rows, columns, chosen.test(name) ? { bias: new Float32Array(rows).fill(0.5) } : {});

  it("that a method added are written, and config.json says so", async () => {
    const { output, folder } = await write({ format: "gptq", make: withBias(/mlp/) });
    expect(jsonOf(output, "config.json")).toMatchObject({ mlp_bias: true });
    expect(jsonOf(output, "config.json").attention_bias).toBeUndefined();
    const back = await openCheckpointModel(folder);
    expect(back.model.mlpBias).toBe(true);
    expect(await back.weights.read("model.layers.1.mlp.up_proj.bias", [96])).toEqual(new Float32Array(96).fill(0.5));
  });

  it("of some linears only are refused", async () => {
    const error = await refusal(write({ format: "bitwright", make: withBias(/0.mlp.up/) }));
    expect(error.kind).toBe("unsupported");
    expect(error.message).toMatch(/model.layers.0.mlp.up_proj has a bias, and config.json of llama cannot say so/);
  });

  it("of zeros, which AutoGPTQ stores for linears without one, are left out", async () => {
    const zeros = (rows: number, columns: number) => affine(rows, columns, { bias: new Float32Array(rows) });
    const { output, folder } = await write({ format: "gptq_v2", make: zeros });
    expect(jsonOf(output, "config.json").mlp_bias).toBeUndefined();
    const { tensors } = await openCheckpointModel(folder);
    expect(tensors.names.filter((name) => name.endsWith(".bias"))).toEqual([]);
  });
});

describe("exports", () => {
  it("of a plain checkpoint are refused", async () => {
    const source = await openCheckpointModel(await llama());
    expect(() => planExport(source, "gptq")).toThrow(/llama is not quantized/);
  });

  it("that the format cannot hold leave nothing", async () => {
    const { folder } = await write({ format: "bitwright", activations: { input: 8 } });
    const source = await openCheckpointModel(folder);
    const output = memoryOutput();
    const error = await refusal(exportCheckpoint({ source, output, format: "gptq" }));
    expect(error.message).toMatch(/--activations/);
    expect(error.remedy).toMatch(/compressed-tensors/);
    expect(output.files.size).toBe(0);
  });

  it("stop when they are told to", async () => {
    const { folder } = await write({ format: "bitwright" });
    const source = await openCheckpointModel(folder);
    const job = { source, output: memoryOutput(), format: "gptq" as const, signal: AbortSignal.abort() };
    expect((await refusal(exportCheckpoint(job))).kind).toBe("aborted");
  });
});
