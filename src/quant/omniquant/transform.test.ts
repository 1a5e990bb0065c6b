import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { syntheticBlock } from "../../../test/synthetic.js";
import { FOLDING } from "../../../test/tolerances.js";
import { createReferenceEngine } from "../../engine/reference/index.js";
import { parseModelConfig } from "../../model/config.js";
import { createRopeTables } from "../../model/rope.js";
import { forwardBlock } from "../../model/stages.js";
import { createRandom } from "../../random.js";
import { planTransform, Transform } from "./transform.js";

const MODELS: Record<string, object> = {
  llama: { model_type: "llama", hidden_act: "silu", num_key_value_heads: 4 },
  "llama, grouped heads, biases": { model_type: "llama", num_key_value_heads: 2, attention_bias: true, mlp_bias: true },
  mistral: { model_type: "mistral", num_key_value_heads: 2, sliding_window: 3 },
  qwen2: { model_type: "qwen2", num_key_value_heads: 2 },
  qwen3: { model_type: "qwen3", num_key_value_heads: 2, head_dim: 8 },
  opt: { model_type: "opt", ffn_dim: 24, activation_function: "relu", do_layer_norm_before: true },
  "opt, post-norm": { model_type: "opt", ffn_dim: 24, activation_function: "relu", do_layer_norm_before: false },
  "falcon 7B": { model_type: "falcon", multi_query: true, parallel_attn: true, bias: false, alibi: false },
  "falcon 40B": {
    model_type: "falcon",
    new_decoder_architecture: true,
    num_kv_heads: 2,
    parallel_attn: true,
    bias: false,
    alibi: false,
  },
  "falcon RW": { model_type: "falcon", multi_query: false, parallel_attn: false, bias: true, alibi: true },
};
const ALL = { input: 4, query: 4, key: 4, value: 4 };
const SHARED = {
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  vocab_size: 11,
  max_position_embeddings: 32,
};

describe("the equivalent transformation changes nothing at full precision", () => {
  for (const [name, words] of Object.entries(MODELS)) {
    it(name, async () => {
      const config = parseModelConfig({ ...SHARED, ...words });
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: 1e6 }), async (seed) => {
          const engine = createReferenceEngine();
          const random = createRandom(seed, name);
          const weights = syntheticBlock(engine, config, random);
          const rope = createRopeTables(engine, config, 8);
          const context = { engine, config, layer: 0, rope, start: 0 };
          const hidden = engine.upload(
            Float32Array.from({ length: 6 * 16 }, () => random.normal()),
            [1, 6, 16],
            "f32",
          );
          const transform = new Transform(engine, planTransform(config, ALL));
          const parameters = transform.identity();
          for (const tensor of Object.values(parameters.scale)) {
            engine.write(
              tensor,
              Float32Array.from({ length: tensor.size }, () => 0.7 * random.normal()),
            );
          }
          for (const tensor of Object.values(parameters.shift)) {
            engine.write(
              tensor,
              Float32Array.from({ length: tensor.size }, () => 0.5 * random.normal()),
            );
          }
          const before = await engine.read(forwardBlock(context, weights, hidden));
          const folded = transform.apply(engine, weights, parameters);
          const after = await engine.read(forwardBlock(context, folded, hidden));
          const largest = before.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          const apart = before.reduce((most, value, i) => Math.max(most, Math.abs(value - after[i])), 0);
          expect(apart).toBeLessThanOrEqual(FOLDING * largest);
        }),
        { numRuns: 8 },
      );
    });
  }
});

describe("the sites of a block", () => {
  const sites = (words: object) => planTransform(parseModelConfig({ ...SHARED, ...words }), ALL).sites;

  it("are where the paper has them, and behind the gate", () => {
    expect(sites(MODELS.llama).map(({ name, size }) => `${name} ${size}`)).toEqual([
      "attentionNorm 16",
      "value 16",
      "queryKey 8", // a scale a rotary pair
      "mlpNorm 16",
      "mlp 24",
    ]);
  });
  it("have shifts where the family has biases", () => {
    expect(
      sites(MODELS.opt)
        .filter(({ shift }) => shift)
        .map(({ name }) => name),
    ).toEqual(["attentionNorm", "value", "mlpNorm"]);
    expect(sites(MODELS.llama).some(({ shift }) => shift)).toBe(false);
  });
});
