import { describe, expect, it } from "vitest";
import {
  affineRecord,
  CONFIG,
  codebookRecord,
  folderOf,
  jsonOf,
  LINEARS,
  type MakeRecord,
  model,
  quantized,
  reals,
  refusal,
} from "../../test/checkpoints.js";
import type { JsonObject } from "../files/json.js";
import { memoryOutput } from "../files/memory.js";
import { recordBits } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import { f32ToBF16, f32ToF16 } from "../tensor/index.js";
import { openCheckpointModel } from "./open.js";
import { writePlainCheckpoint } from "./plain.js";
import { writeQuantizedCheckpoint } from "./write.js";

describe("a quantized checkpoint", () => {
  const withOutliers: MakeRecord = (rows, columns) => codebookRecord(rows, columns, { rowScale: reals(rows) });
  it.each<[string, MakeRecord, "vptq" | "bitwright", string]>([
    ["codebooks in the published layout", (rows, columns) => codebookRecord(rows, columns), "vptq", "model."],
    ["the same without the prefix", (rows, columns) => codebookRecord(rows, columns), "vptq", ""],
    ["codebooks that it cannot hold in ours", withOutliers, "bitwright", "model."],
    ["affine codes", (rows, columns) => affineRecord(rows, columns), "bitwright", ""],
  ])("of %s reads back, through shards", async (_what, make, layout, prefix) => {
    const { source, records, output, written } = await quantized(make, { prefix, shard: 400 });
    expect(written.format).toBe(layout);
    expect(written.reason === undefined).toBe(layout === "vptq");
    const checkpoint = await openCheckpointModel(folderOf(output));
    expect(checkpoint.format).toBe(layout);
    expect(checkpoint.layers.map(({ name }) => name)).toEqual(LINEARS.map(({ name }) => name));
    for (const { name, rows, columns } of LINEARS) {
      const weight = `${name}.weight`;
      const record = records.get(name) ?? expect.unreachable();
      expect(checkpoint.weights.shape(weight)).toEqual([rows, columns]);
      expect(await checkpoint.weights.read(weight, [rows, columns])).toEqual(dequantize(record));
      expect(checkpoint.tensors.info(`${prefix}${weight.slice(6)}`)).toBeUndefined();
      const layer = checkpoint.layers.find((candidate) => candidate.name === name) ?? expect.unreachable();
      const biasBits = checkpoint.weights.has(`${name}.bias`) ? 16 * rows : 0;
      expect(layer.bits).toBe(recordBits(record, layout).total + biasBits);
    }
    // everything else is as it was
    for (const name of ["model.embed_tokens.weight", "lm_head.weight", "model.layers.1.self_attn.q_proj.bias"]) {
      const shape = source.weights.shape(name) ?? [];
      expect(await checkpoint.weights.read(name, shape)).toEqual(await source.weights.read(name, shape));
    }
    expect(await checkpoint.report()).toEqual({ recipe: { method: "vptq" } });
    expect([...output.files.keys()].filter((name) => !/^model/.test(name)).sort()).toEqual([
      "bitwright.json",
      "chat_template.jinja",
      "config.json",
      "tokenizer.json",
    ]);
    expect([...output.files.keys()].filter((name) => /-of-/.test(name)).length).toBeGreaterThan(2);
  });

  it("says in config.json what other programs read there, and keeps the model's own words", async () => {
    const { output } = await quantized((rows, columns) => codebookRecord(rows, columns));
    const { quantization_config: quantization, ...own } = jsonOf(output, "config.json");
    expect(own).toEqual({ ...CONFIG, torch_dtype: "float16" });
    expect(Object.keys(quantization as JsonObject)).toEqual(["quant_method", "config_for_layers"]);
    const layers = (quantization as { config_for_layers: Record<string, unknown> }).config_for_layers;
    expect(Object.keys(layers)).toEqual(LINEARS.map(({ name }) => name));
    expect(layers["model.layers.1.self_attn.k_proj"]).toEqual({
      in_features: 12,
      out_features: 6,
      bias: true, // the model's, copied
      vector_lens: [-1, 4],
      num_centroids: [-1, 8],
      num_res_centroids: [-1, -1],
      group_num: 1,
      group_size: 12,
      outlier_size: 0,
      enable_norm: false,
      enable_perm: false,
      is_indice_packed: true,
      indices_as_float: false,
    });
  });

  it("puts the type under `dtype` where the model does", async () => {
    const { torch_dtype: _, ...rest } = CONFIG;
    const { output } = await quantized((rows, columns) => codebookRecord(rows, columns), {
      config: { ...rest, dtype: "bfloat16" },
    });
    const config = jsonOf(output, "config.json");
    expect(config.dtype).toBe("float16");
    expect("torch_dtype" in config).toBe(false);
  });

  it("leaves layers alone that are not quantized", async () => {
    const source = await openCheckpointModel(await model());
    const [{ name, rows, columns }] = LINEARS;
    const output = memoryOutput();
    await writeQuantizedCheckpoint({
      source,
      output,
      names: [name],
      record: async () => codebookRecord(rows, columns),
    });
    const checkpoint = await openCheckpointModel(folderOf(output));
    expect(checkpoint.layers.map((layer) => layer.name)).toEqual([name]);
    const other = `${LINEARS[9].name}.weight`;
    const shape = source.weights.shape(other) ?? [];
    expect(await checkpoint.weights.read(other, shape)).toEqual(await source.weights.read(other, shape));
  });

  it("names the linear that the layout asked for cannot hold, and leaves nothing", async () => {
    const source = await openCheckpointModel(await model());
    const [{ name, rows, columns }] = LINEARS;
    const output = memoryOutput();
    const job = {
      source,
      output,
      names: [name],
      record: async () => affineRecord(rows, columns),
      format: "vptq" as const,
    };
    const error = await refusal(writeQuantizedCheckpoint(job));
    expect(error.kind).toBe("usage");
    expect(error.message).toMatch(/cannot hold model.layers.0.self_attn.q_proj: it holds codebooks only/);
    await output.commit();
    expect(output.files.size).toBe(0);
  });

  it("is not quantized again", async () => {
    const { output } = await quantized((rows, columns) => affineRecord(rows, columns));
    const source = await openCheckpointModel(folderOf(output));
    const job = { source, output: memoryOutput(), names: [], record: async () => affineRecord(1, 1) };
    expect((await refusal(writeQuantizedCheckpoint(job))).message).toMatch(/out is quantized already/);
  });

  it("stops when it is told to", async () => {
    const source = await openCheckpointModel(await model());
    const job = {
      source,
      output: memoryOutput(),
      names: LINEARS.map(({ name }) => name),
      record: async () => affineRecord(1, 1),
      signal: AbortSignal.abort(),
    };
    expect((await refusal(writeQuantizedCheckpoint(job))).kind).toBe("aborted");
  });
});

describe("a plain checkpoint of a quantized one", () => {
  it.each(["f16", "bf16"] as const)("holds the rounded weights as %s", async (dtype) => {
    const { output } = await quantized((rows, columns) => codebookRecord(rows, columns), { prefix: "" });
    const source = await openCheckpointModel(folderOf(output));
    const plain = memoryOutput();
    const bytes = await writePlainCheckpoint({ source, output: plain, dtype, maxShardBytes: 1000 });
    const checkpoint = await openCheckpointModel(folderOf(plain));
    expect(checkpoint.format).toBe("plain");
    expect(checkpoint.layers).toEqual([]);
    const config = jsonOf(plain, "config.json");
    expect(config).toEqual({ ...CONFIG, torch_dtype: dtype === "f16" ? "float16" : "bfloat16" });
    let stored = 0;
    for (const key of checkpoint.tensors.names) {
      expect(checkpoint.tensors.info(key)?.dtype).toBe(dtype);
      stored += checkpoint.tensors.info(key)?.bytes ?? 0;
    }
    expect(bytes).toBe(stored);
    for (const name of [
      ...LINEARS.map((linear) => `${linear.name}.weight`),
      "lm_head.weight",
      `${LINEARS[0].name}.bias`,
    ]) {
      const shape = source.weights.shape(name) ?? [];
      const values = await checkpoint.weights.read(name, shape);
      const bits = (array: Float32Array) => (dtype === "f16" ? f32ToF16(array) : f32ToBF16(array));
      expect(bits(values)).toEqual(bits(await source.weights.read(name, shape)));
    }
    expect(plain.files.has("chat_template.jinja")).toBe(true);
    expect(plain.files.has("bitwright.json")).toBe(false);
  });

  it("refuses values that f16 cannot hold", async () => {
    const replace = { "model.norm.weight": new Float32Array(12).fill(1e6) };
    const source = await openCheckpointModel(await model({ replace }));
    const output = memoryOutput();
    const error = await refusal(writePlainCheckpoint({ source, output, dtype: "f16" }));
    expect(error.kind).toBe("numeric");
    expect(error.message).toMatch(/model.norm.weight holds 999424 at element 0, which f16 cannot/);
    expect(error.remedy).toMatch(/bf16/);
    expect(output.files.size).toBe(0);
    // by default it is what the model says
    await writePlainCheckpoint({ source, output: memoryOutput() });
  });
});
