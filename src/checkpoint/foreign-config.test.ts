import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { refusal, text } from "../../test/checkpoints.js";
import { MODELS, modelFolder } from "../../test/golden/interop/fixtures.js";
import { BitwrightError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import { isObject, type JsonObject } from "../files/json.js";
import { memoryFolder } from "../files/memory.js";
import { openCheckpointModel } from "./open.js";

describe("foreign configurations", () => {
  const changed = async (name: string, change: (quantization: JsonObject) => unknown): Promise<Folder> => {
    const folder = await modelFolder(name);
    const files = new Map<string, Uint8Array>();
    for (const file of ["config.json", "model.safetensors"]) {
      const source = await folder.open(file);
      files.set(file, await source.read(0, source.size));
      await source.close();
    }
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json"))) as JsonObject;
    change(config.quantization_config as JsonObject);
    files.set("config.json", text(config));
    return memoryFolder(name, files);
  };
  const group = (quantization: JsonObject) => (quantization.config_groups as Record<string, JsonObject>).group_0;
  const weights = (quantization: JsonObject) => group(quantization).weights as JsonObject;

  const GPTQ = "gptq-v1-4-32-sym";
  const PACKED = "compressed-3-32-asym-mixed";
  const INT8 = "compressed-w8a8-kv6";
  it.each<[string, string, (quantization: JsonObject) => unknown, RegExp]>([
    [GPTQ, "marlin", (q) => Object.assign(q, { checkpoint_format: "marlin" }), /packed as "marlin"/],
    [GPTQ, "is_marlin_format", (q) => Object.assign(q, { is_marlin_format: true }), /packed as marlin/],
    [GPTQ, "a head", (q) => Object.assign(q, { lm_head: true }), /lm_head is quantized/],
    [GPTQ, "5 bits", (q) => Object.assign(q, { bits: 5 }), /has 5 bits; 2, 3, 4 and 8/],
    [GPTQ, "other bits", (q) => Object.assign(q, { bits: 8 }), /qweight: expected shape \[16, 64\].* got \[8, 64\]/],
    [GPTQ, "other groups", (q) => Object.assign(q, { group_size: 64 }), /qzeros: expected shape \[1, 8\]/],
    [GPTQ, "no bits", (q) => delete q.bits, /quantization_config is not valid: bits/],
    [GPTQ, "another word", (q) => Object.assign(q, { pack_dtype: "int16" }), /packed into int16/],
    [GPTQ, "left alone", (q) => Object.assign(q, { dynamic: { "-:.*q_proj": {} } }), /leaves .*q_proj alone, but/],
    [GPTQ, "a bad pattern", (q) => Object.assign(q, { dynamic: { "(?=x)": {} } }), /look-around/],
    [PACKED, "no codes", (q) => Object.assign(q, { format: "int-quantized" }), /has no tensor weight,/],
    [PACKED, "another format", (q) => Object.assign(q, { format: "marlin-24" }), /stored as "marlin-24"/],
    [PACKED, "ignored", (q) => Object.assign(q, { ignore: ["re:.*gate_proj"] }), /leaves .*gate_proj alone, but/],
    [PACKED, "floats", (q) => Object.assign(weights(q), { type: "float" }), /float numbers of 3 bits/],
    [PACKED, "a scale for all", (q) => Object.assign(weights(q), { strategy: "tensor" }), /scaled by tensor/],
    [
      PACKED,
      "transforms",
      (q) => Object.assign(q, { transform_config: { config_groups: { a: 1 } } }),
      /has transforms/,
    ],
    [PACKED, "sparse", (q) => Object.assign(q, { sparsity_config: { format: "sparse-24-bitmask" } }), /are sparse/],
    [PACKED, "outputs", (q) => Object.assign(group(q), { output_activations: {} }), /quantizes the outputs/],
    [PACKED, "a group's order", (q) => Object.assign(weights(q), { actorder: "group" }), /no tensor weight_g_idx/],
    [
      INT8,
      "fixed scales",
      (q) => Object.assign(group(q).input_activations as object, { dynamic: false }),
      /with fixed scales/,
    ],
    [
      INT8,
      "a fixed cache",
      (q) => Object.assign(q.kv_cache_scheme as object, { dynamic: false, strategy: "tensor" }),
      /keys and values .* with fixed scales/,
    ],
    [
      INT8,
      "float inputs",
      (q) => Object.assign(group(q).input_activations as object, { type: "float" }),
      /float numbers of 8/,
    ],
    [
      INT8,
      "one linear unlike others",
      (q) => Object.assign(q, { ignore: ["lm_head", "model.layers.1.mlp.up_proj"] }),
      /the inputs of .*up_proj are quantized unlike others/,
    ],
  ])("%s, %s: refused with the reason", async (name, _what, change, message) => {
    expect((await refusal(openCheckpointModel(await changed(name, change)))).message).toMatch(message);
  });

  it.each(MODELS)("%s: typed errors only, whatever is changed in it", async (name) => {
    const odd = fc.constantFrom<unknown>(
      ...[null, true, 0, 1, -1, 3, 1e9, 1.5, "x", "re:(", "re:.*", "group", "channel", "Linear", [], {}, ["Linear"]],
      ...[{ "+:.*": { bits: 2 } }, { "-:.*": {} }, { num_bits: 4 }, { group_0: { targets: ["Linear"] } }],
    );
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(), odd), { minLength: 1, maxLength: 2 }), async (changes) => {
        const folder = await changed(name, (quantization) => {
          for (const [at, value] of changes) {
            const slots: [JsonObject, string][] = [];
            const walk = (node: JsonObject) => {
              for (const [key, child] of Object.entries(node)) {
                slots.push([node, key]);
                if (isObject(child)) walk(child);
              }
            };
            walk(quantization);
            const [node, key] = slots[at % slots.length];
            node[key] = structuredClone(value);
          }
        });
        try {
          const checkpoint = await openCheckpointModel(folder);
          for (const { name: layer, shape } of checkpoint.layers)
            await checkpoint.weights.read(`${layer}.weight`, [shape.rows, shape.columns]);
        } catch (error) {
          expect(error).toBeInstanceOf(BitwrightError);
          refused++;
        }
      }),
      { numRuns: 150 },
    );
    expect(refused).toBeGreaterThan(20);
  });
});
