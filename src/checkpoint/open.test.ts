import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  affineRecord,
  CONFIG,
  codebookRecord,
  folderOf,
  jsonOf,
  LINEARS,
  model,
  quantized,
  refusal,
  text,
} from "../../test/checkpoints.js";
import { BitwrightError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";
import { type MemoryOutput, memoryFolder } from "../files/memory.js";
import { dequantize } from "../quant/dequantize.js";
import { openCheckpointModel } from "./open.js";

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
