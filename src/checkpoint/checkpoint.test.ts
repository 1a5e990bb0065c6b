import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BitwrightError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";
import { type MemoryOutput, memoryFolder, memoryOutput } from "../files/memory.js";
import { type OutgoingTensor, writeCheckpointTensors } from "../files/safetensors-writer.js";
import type { StoredDType } from "../files/tensors.js";
import { blockLinears } from "../model/block.js";
import { parseModelConfig } from "../model/config.js";
import { recordBits } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { AffineRecord, CodebookRecord, QuantizedRecord } from "../quant/record.js";
import { f32ToBF16, f32ToF16, roundToF16 } from "../tensor/index.js";
import { openCheckpointModel } from "./open.js";
import { writePlainCheckpoint } from "./plain.js";
import { writeQuantizedCheckpoint } from "./write.js";

const CONFIG = {
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 9,
  rms_norm_eps: 1e-6,
  torch_dtype: "bfloat16",
  custom: { kept: true },
};
const LINEARS = [0, 1].flatMap((index) => blockLinears(parseModelConfig(CONFIG), index));

let seed = 1;
const random = () => {
  seed = (Math.imul(seed, 48271) >>> 0) % 2147483647;
  return seed / 2147483647 - 0.5;
};
const text = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

interface ModelOptions {
  prefix?: string;
  config?: JsonObject;
  replace?: Record<string, Float32Array>;
}

/** A small random Qwen2 checkpoint in bf16. */
async function model({ prefix = "model.", config = CONFIG, replace = {} }: ModelOptions = {}): Promise<Folder> {
  const tensors: OutgoingTensor[] = [];
  const add = (name: string, shape: number[], dtype: StoredDType = "bf16") => {
    const values = replace[name] ?? Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, random);
    const bits = dtype === "f16" ? f32ToF16(values) : f32ToBF16(values);
    tensors.push({
      name: name.replace(/^model\./, prefix),
      dtype,
      shape,
      read: async () => new Uint8Array(bits.buffer),
    });
  };
  add("model.embed_tokens.weight", [9, 12]);
  for (const { name, rows, columns, bias } of LINEARS) {
    add(`${name}.weight`, [rows, columns]);
    if (bias) add(`${name}.bias`, [rows]);
  }
  for (const layer of [0, 1]) {
    add(`model.layers.${layer}.input_layernorm.weight`, [12]);
    add(`model.layers.${layer}.post_attention_layernorm.weight`, [12]);
  }
  add("model.norm.weight", [12]);
  add("lm_head.weight", [9, 12], "f16");
  const output = memoryOutput();
  await writeCheckpointTensors(output, tensors);
  await output.commit();
  output.files.set("config.json", text(config));
  output.files.set("tokenizer.json", text({ tokens: [] }));
  output.files.set("chat_template.jinja", text("{{ messages }}"));
  output.files.set("training_args.bin", text("not for us"));
  return memoryFolder("model", output.files);
}

const reals = (count: number) => Float32Array.from({ length: count }, () => roundToF16(random()));

function codebookRecord(rows: number, columns: number, parts: Partial<CodebookRecord> = {}): CodebookRecord {
  const stage = { codewords: 8, indices: new Uint16Array(Math.ceil(rows / 4) * columns), centroids: reals(32) };
  for (let i = 0; i < stage.indices.length; i++) stage.indices[i] = (random() + 0.5) * 8;
  const segments = [{ begin: 0, end: columns, vectorLength: 4, stages: [stage] }];
  return { kind: "codebook", storage: "f16", rows, columns, hasOutliers: false, segments, ...parts };
}

function affineRecord(rows: number, columns: number): AffineRecord {
  const groups = rows * Math.ceil(columns / 5);
  return {
    kind: "affine",
    storage: "f16",
    rows,
    columns,
    bits: 3,
    symmetric: false,
    group: 5,
    codes: Uint8Array.from({ length: rows * columns }, () => (random() + 0.5) * 8),
    scale: reals(groups),
    zero: Uint8Array.from({ length: groups }, () => (random() + 0.5) * 8),
  };
}

type MakeRecord = (rows: number, columns: number, name: string) => QuantizedRecord;

/** Quantizes every linear (to anything), writes and opens again. */
async function quantized(
  make: MakeRecord,
  options: ModelOptions & { format?: "vptq" | "bitwright"; shard?: number } = {},
) {
  const source = await openCheckpointModel(await model(options));
  const records = new Map(LINEARS.map(({ name, rows, columns }) => [name, make(rows, columns, name)]));
  const output = memoryOutput();
  const written = await writeQuantizedCheckpoint({
    source,
    output,
    names: [...records.keys()],
    record: async (name) => records.get(name) ?? expect.unreachable(),
    format: options.format,
    maxShardBytes: options.shard,
    report: { recipe: { method: "vptq" } },
  });
  return { source, records, output, written };
}

const folderOf = (output: MemoryOutput) => memoryFolder("out", output.files);
const jsonOf = (output: MemoryOutput, name: string) =>
  JSON.parse(new TextDecoder().decode(output.files.get(name))) as JsonObject;

async function refusal(promise: Promise<unknown>): Promise<BitwrightError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof BitwrightError) return error;
  throw new Error(`expected a refusal, got ${String(error)}`);
}

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

describe("opening a checkpoint", () => {
  const changed = async (output: MemoryOutput, change: (config: JsonObject) => unknown): Promise<Folder> => {
    const config = jsonOf(output, "config.json");
    change(config);
    return memoryFolder("out", new Map([...output.files, ["config.json", text(config)]]));
  };
  const published = () => quantized((rows, columns) => codebookRecord(rows, columns));

  it("finds shapes, missing tensors and bad values", async () => {
    const bad = new Float32Array(6 * 12);
    bad[13] = Number.NaN;
    const name = "model.layers.0.self_attn.k_proj.weight";
    const { weights } = await openCheckpointModel(await model({ replace: { [name]: bad } }));
    const numeric = await refusal(weights.read(name, [6, 12]));
    expect(numeric.kind).toBe("numeric");
    expect(numeric.message).toBe(`tensor ${name} holds NaN at [1, 1]`);
    expect((await refusal(weights.read(name, [12, 6]))).message).toMatch(
      /k_proj.weight: expected shape \[12, 6\] from config.json, the checkpoint has \[6, 12\]/,
    );
    expect((await refusal(weights.read("model.x.weight", [1]))).message).toMatch(
      /tensor model.x.weight is missing from model/,
    );
    expect(weights.has("model.x.weight")).toBe(false);
    expect(weights.shape("model.x.weight")).toBeUndefined();
  });

  it("finds bad values in codebooks", async () => {
    const { output } = await published();
    const checkpoint = await openCheckpointModel(folderOf(output));
    const file = output.files.get("model.safetensors") ?? expect.unreachable();
    // overwrite one centroid on the "disk" by an infinity
    const name = "model.layers.0.self_attn.q_proj.centroids.weight";
    const bytes = await checkpoint.tensors.readRaw(name);
    new Uint16Array(file.buffer, bytes.byteOffset, 32)[5] = 0x7c00;
    const error = await refusal(checkpoint.weights.read("model.layers.0.self_attn.q_proj.weight", [12, 12]));
    expect(error.message).toBe(`tensor ${name} holds infinity at [0, 5]`);
  });

  it("refuses formats and versions that it does not know, by name", async () => {
    const folder = await model({ config: { ...CONFIG, quantization_config: { quant_method: "exl3", bits: 2 } } });
    const error = await refusal(openCheckpointModel(folder));
    expect(error.kind).toBe("unsupported");
    expect(error.message).toMatch(/quantized as "exl3"/);
    expect(error.remedy).toMatch(/vptq, gptq, gptq_v2, compressed-tensors, bitwright/);
    const { output } = await quantized((rows, columns) => affineRecord(rows, columns));
    const newer = await changed(output, (config) =>
      Object.assign(config.quantization_config as object, { version: 2 }),
    );
    expect((await refusal(openCheckpointModel(newer))).message).toMatch(
      /version 2 of the bitwright layout; version 1 is known/,
    );
    for (const quantization of [{}, 5, [], { quant_method: 7 }]) {
      const odd = await model({ config: { ...CONFIG, quantization_config: quantization } });
      expect((await refusal(openCheckpointModel(odd))).message).toMatch(/has no quant_method/);
    }
  });

  it("refuses a folder without config.json", async () => {
    const error = await refusal(openCheckpointModel(memoryFolder("empty", new Map())));
    expect(error.message).toBe("empty has no config.json");
  });

  it("says when configuration and weights disagree", async () => {
    const { output } = await published();
    type Layers = { config_for_layers: Record<string, Record<string, unknown>> };
    const layersOf = (config: JsonObject) => (config.quantization_config as Layers).config_for_layers;
    const query = "model.layers.0.self_attn.q_proj";
    const cases: [(config: JsonObject) => unknown, RegExp][] = [
      [(config) => delete layersOf(config)[query], /layer model.layers.0.self_attn.q_proj is quantized, but/],
      [
        (config) => Object.assign(layersOf(config), { lm_head: layersOf(config)[query] }),
        /quantizes lm_head, but .* has no lm_head .indices/,
      ],
      [
        (config) => Object.assign(layersOf(config)[query], { num_centroids: [-1, 16] }),
        /q_proj.centroids.weight: expected shape \[1, 64\] from quantization_config, got \[1, 32\]/,
      ],
      [(config) => Object.assign(layersOf(config)[query], { enable_perm: true }), /layer .*q_proj has no tensor perm/],
      [(config) => Object.assign(layersOf(config)[query], { num_centroids: [-1, 12] }), /must be powers of two/],
      [(config) => Object.assign(layersOf(config)[query], { group_num: 5 }), /do not make 12 columns/],
      [
        (config) => Object.assign(layersOf(config)[query], { outlier_size: 2 }),
        /outlier_size is 2, but there is no outlier codebook/,
      ],
      [(config) => Object.assign(layersOf(config)[query], { vector_quant_dim: "in" }), /vectors along its inputs/],
      [(config) => Object.assign(layersOf(config)[query], { in_features: 2 ** 40 }), /in_features: Too big/],
      [(config) => Object.assign(config, { quantization_config: { quant_method: "vptq" } }), /names no layers/],
    ];
    for (const [change, message] of cases) {
      expect((await refusal(openCheckpointModel(await changed(output, change)))).message).toMatch(message);
    }
  });

  it("reads what the other writers of the published layout say", async () => {
    const { output, records } = await published();
    const quantization = (config: JsonObject) =>
      config.quantization_config as { config_for_layers: Record<string, JsonObject> };
    const variants: [string, (config: JsonObject) => unknown][] = [
      [
        "extra keys of the algorithm branch",
        (config) => {
          for (const layer of Object.values(quantization(config).config_for_layers)) {
            Object.assign(layer, { norm_dim: 0, enable_proxy_error: false, indices_as_float: null });
          }
        },
      ],
      [
        "shared settings",
        (config) => {
          const layers = quantization(config).config_for_layers;
          const shared = Object.fromEntries(
            Object.entries(layers).map(([name, layer]) => [name.split(".").pop(), layer]),
          );
          Object.assign(config, {
            quantization_config: { quant_method: "vptq", shared_layer_config: shared, enable_proxy_error: false },
          });
        },
      ],
      [
        "quant_config of before 0.0.4",
        (config) => {
          config.quant_config = quantization(config).config_for_layers;
          delete config.quantization_config;
        },
      ],
      [
        "the flat setting of GPTQModel",
        (config) => {
          config.quantization_config = {
            quant_method: "vptq",
            bits: 1,
            vector_lens: [-1, 4],
            num_centroids: [-1, 8],
            num_res_centroids: [-1, -1],
            npercent: 0,
            group_size: -1,
            group_num: -1,
            norm_dim: 0,
          };
        },
      ],
    ];
    for (const [what, change] of variants) {
      const checkpoint = await openCheckpointModel(await changed(output, change));
      for (const { name, rows, columns } of LINEARS) {
        const record = records.get(name) ?? expect.unreachable();
        expect(await checkpoint.weights.read(`${name}.weight`, [rows, columns]), what).toEqual(dequantize(record));
      }
    }
  });

  it("gives typed errors only, whatever quantization_config says", async () => {
    const files = await Promise.all([published(), quantized((rows, columns) => affineRecord(rows, columns))]);
    const word = fc.constantFrom(
      ...["config_for_layers", "shared_layer_config", "layers", "q_proj", "vector_lens", "num_centroids", "group_num"],
      ...["enable_norm", "enable_perm", "__proto__", "constructor", "version", "model.layers.0.self_attn.q_proj"],
    );
    const { json } = fc.letrec<{ json: unknown }>((tie) => ({
      json: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom<unknown>(null, true, 1, 0, -1, 1e300, "x", [-1, 4], [4, 8]),
        fc.dictionary(word, tie("json"), { maxKeys: 4, noNullPrototype: true }),
        fc.array(tie("json"), { maxLength: 3 }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(fc.dictionary(word, json, { noNullPrototype: true }), fc.boolean(), async (value, ours) => {
        const folder = await changed(files[ours ? 1 : 0].output, (config) => {
          config.quantization_config = { version: 1, ...value, quant_method: ours ? "bitwright" : "vptq" };
        });
        try {
          const checkpoint = await openCheckpointModel(folder);
          for (const { name, shape } of checkpoint.layers) {
            await checkpoint.weights.read(`${name}.weight`, [shape.rows, shape.columns]);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(BitwrightError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
