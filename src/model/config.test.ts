import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FIXTURES, fixtureConfig, readJson } from "../../test/golden/families/fixtures.js";
import { BitwrightError } from "../errors.js";
import { CONFIG_LIMITS, parseModelConfig, readModelConfig } from "./config.js";

const llama = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  vocab_size: 100,
};
const qwen2 = { ...llama, model_type: "qwen2" };
const failure = (json: unknown): BitwrightError => {
  try {
    parseModelConfig(json);
  } catch (error) {
    if (error instanceof BitwrightError) return error;
    throw error;
  }
  throw new Error("no error");
};

describe("parseModelConfig", () => {
  it.each(FIXTURES)("reads %s alike in the words of transformers 4 and of transformers 5", (fixture) => {
    expect(fixtureConfig(fixture, "config.v4.json")).toEqual(fixtureConfig(fixture));
  });

  it("translates a whole configuration", () => {
    expect(fixtureConfig("llama-linear-bias")).toEqual({
      family: "llama",
      layout: "sequential",
      hidden: 48,
      layers: 2,
      heads: 4,
      keyValueHeads: 1,
      headSize: 16,
      mlp: 80,
      vocabulary: 96,
      embeddingWidth: 48,
      contextLength: 64,
      norm: "rms",
      normWeights: true,
      epsilon: 1e-6,
      finalNorm: true,
      positions: "rotary",
      rope: { theta: 500, scaling: { kind: "linear", factor: 4 } },
      attentionBias: { query: true, key: true, value: true, output: true },
      mlpBias: true,
      tieEmbeddings: false,
      slidingWindow: [undefined, undefined],
      queryKeyNorm: false,
      activation: "silu",
      dtype: "f16",
      beginToken: 1,
      endTokens: [2],
    });
  });

  it("takes transformers' defaults where the file is silent", () => {
    const config = parseModelConfig({ ...llama, num_key_value_heads: undefined });
    expect(config).toMatchObject({
      keyValueHeads: 8,
      headSize: 8,
      epsilon: 1e-6,
      contextLength: 2048,
      tieEmbeddings: false,
    });
    expect(config.rope).toEqual({ theta: 10000, scaling: { kind: "none" } });
    expect(parseModelConfig({ ...llama, model_type: "mistral" }).slidingWindow).toEqual([4096, 4096, 4096]);
    expect(parseModelConfig({ ...llama, model_type: "qwen3" }).headSize).toBe(128);
    expect(parseModelConfig({ ...qwen2, num_key_value_heads: null }).keyValueHeads).toBe(8);
  });

  it("gives each family its biases and norms", () => {
    const bias = (extra: object) => parseModelConfig({ ...llama, attention_bias: true, mlp_bias: true, ...extra });
    const none = { query: false, key: false, value: false, output: false };
    expect(bias({}).attentionBias).toEqual({ query: true, key: true, value: true, output: true });
    expect(bias({ model_type: "mistral" })).toMatchObject({ attentionBias: none, mlpBias: false });
    expect(bias(qwen2).attentionBias).toEqual({ query: true, key: true, value: true, output: false });
    expect(bias({ model_type: "qwen3" }).attentionBias.output).toBe(true);
    expect(bias({ model_type: "qwen3" })).toMatchObject({ queryKeyNorm: true, mlpBias: false });
  });

  it("reads OPT", () => {
    const opt = { model_type: "opt", hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 4, vocab_size: 9 };
    const biases = { query: true, key: true, value: true, output: true };
    expect(parseModelConfig(opt)).toMatchObject({
      layout: "sequential",
      keyValueHeads: 4,
      headSize: 3, // nothing is rotated: it may be odd
      mlp: 3072,
      embeddingWidth: 12,
      contextLength: 2048,
      norm: "layer",
      normWeights: true,
      epsilon: 1e-5,
      finalNorm: true,
      positions: "learned",
      rope: undefined,
      attentionBias: biases,
      mlpBias: true,
      tieEmbeddings: true,
      activation: "relu",
    });
    const behind = parseModelConfig({
      ...opt,
      do_layer_norm_before: false,
      word_embed_proj_dim: 5,
      enable_bias: false,
    });
    expect(behind).toMatchObject({ layout: "post-norm", finalNorm: false, embeddingWidth: 5, mlpBias: false });
    expect(parseModelConfig({ ...opt, _remove_final_layer_norm: true }).finalNorm).toBe(false);
    expect(failure({ ...opt, ffn_dim: "x" }).message).toContain("ffn_dim");
    expect(failure({ ...opt, activation_function: "silu" }).message).toContain("activation_function");
  });

  it("reads Falcon", () => {
    const falcon = {
      model_type: "falcon",
      hidden_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 8,
      vocab_size: 9,
    };
    const facts = (extra: object) => {
      const { layout, keyValueHeads, positions, mlpBias, mlp } = parseModelConfig({ ...falcon, ...extra });
      return [layout, keyValueHeads, positions, mlpBias, mlp];
    };
    expect(facts({ num_kv_heads: 8 })).toEqual(["parallel", 1, "rotary", false, 256]); // 7B states 71 heads, and has 1
    expect(facts({ multi_query: false, parallel_attn: false, alibi: true, bias: true })).toEqual([
      "sequential",
      8,
      "alibi",
      true,
      256,
    ]);
    const modern = { new_decoder_architecture: true, num_kv_heads: 2, ffn_hidden_size: 100 };
    expect(facts(modern)).toEqual(["parallel, two norms", 2, "rotary", false, 100]);
    expect(facts({ ...modern, num_ln_in_parallel_attn: 1 })).toEqual(["parallel", 2, "rotary", false, 100]);
    expect(failure({ ...falcon, new_decoder_architecture: true, num_kv_heads: 3 }).message).toContain(
      "num_kv_heads (3)",
    );
    expect(failure({ ...falcon, activation: "swish" }).message).toContain('activation "swish"');
  });

  it("knows when a sliding window counts", () => {
    const windows = (extra: object) => parseModelConfig({ ...qwen2, sliding_window: 7, ...extra }).slidingWindow;
    expect(windows({ use_sliding_window: true, max_window_layers: 1 })).toEqual([undefined, 7, 7]);
    expect(windows({ use_sliding_window: false, max_window_layers: 1 })).toEqual([undefined, undefined, undefined]);
    expect(windows({ max_window_layers: 0 })).toEqual([undefined, undefined, undefined]);
    const types = ["sliding_attention", "full_attention", "sliding_attention"];
    expect(windows({ use_sliding_window: true, layer_types: types })).toEqual([7, undefined, 7]);
    expect(failure({ ...qwen2, use_sliding_window: false, layer_types: types }).message).toContain(
      "use_sliding_window",
    );
    expect(failure({ ...qwen2, use_sliding_window: true, layer_types: ["full_attention"] }).message).toContain(
      "1 entries",
    );
    expect(failure({ ...qwen2, layer_types: ["a", "b", "c"] }).kind).toBe("unsupported");
    const mistral = { ...llama, model_type: "mistral" };
    expect(parseModelConfig({ ...mistral, sliding_window: 9 }).slidingWindow).toEqual([9, 9, 9]);
    expect(parseModelConfig({ ...mistral, sliding_window: null }).slidingWindow).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(parseModelConfig({ ...llama, sliding_window: 9 }).slidingWindow).toEqual([undefined, undefined, undefined]);
  });

  it("reads both spellings of rotary scaling", () => {
    const rope = (extra: object) => parseModelConfig({ ...llama, ...extra }).rope;
    const linear = { theta: 5000, scaling: { kind: "linear", factor: 2 } };
    expect(rope({ rope_theta: 5000, rope_scaling: { type: "linear", factor: 2 } })).toEqual(linear);
    expect(rope({ rope_theta: 5000, rope_scaling: { rope_type: "linear", factor: 2 } })).toEqual(linear);
    expect(rope({ rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 5000 } })).toEqual(linear);
    expect(rope({ rope_scaling: null, rope_theta: 5000 })).toEqual({ theta: 5000, scaling: { kind: "none" } });
    const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    expect(rope({ rope_scaling: llama3, max_position_embeddings: 77 })?.scaling).toMatchObject({ originalContext: 77 });
  });

  it.each(["yarn", "dynamic", "longrope", "mrope"])("refuses rotary scaling %s by name", (type) => {
    for (const extra of [{ rope_scaling: { type, factor: 2 } }, { rope_parameters: { rope_type: type, factor: 2 } }]) {
      const error = failure({ ...llama, ...extra });
      expect(error.kind).toBe("unsupported");
      expect(error.message).toContain(type);
    }
  });

  it("says what it cannot do", () => {
    expect(failure({ ...llama, hidden_act: "gelu" }).message).toContain("gelu");
    expect(failure({ ...llama, partial_rotary_factor: 0.5 }).message).toContain("partial_rotary_factor");
    const unknown = failure({ ...llama, model_type: "mamba" });
    expect(unknown.kind).toBe("unsupported");
    expect(unknown.message).toContain("mamba");
    for (const name of ["llama", "mistral", "qwen2", "qwen3", "opt", "falcon"]) expect(unknown.remedy).toContain(name);
  });

  it.each([
    ["a field that is missing", { hidden_size: undefined }, "hidden_size"],
    ["a text for a number", { num_hidden_layers: "3" }, "num_hidden_layers"],
    ["a fraction", { num_attention_heads: 2.5 }, "num_attention_heads"],
    ["no layers", { num_hidden_layers: 0 }, "num_hidden_layers"],
    ["absurd sizes", { hidden_size: 1e9 }, "hidden_size"],
    ["absurd layers", { num_hidden_layers: 1e9 }, "num_hidden_layers"],
    ["a tensor too large", { vocab_size: 1 << 24, hidden_size: 1 << 16 }, "vocab_size x hidden_size"],
    ["heads that do not group", { num_key_value_heads: 3 }, "num_key_value_heads (3)"],
    ["a width that the heads do not divide", { hidden_size: 68 }, "hidden_size (68)"],
    ["an odd head size", { head_dim: 7 }, "head size (7)"],
    ["a missing factor", { rope_scaling: { type: "linear" } }, "lacks factor"],
    [
      "a ramp of llama3 that runs backwards",
      { rope_scaling: { rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 1 } },
      "must exceed",
    ],
  ])("refuses %s", (_, change, expected) => {
    const error = failure({ ...llama, ...change });
    expect(error.kind).toBe("format");
    expect(error.message).toContain(expected);
  });

  it("leaves out special tokens that are none", () => {
    const config = parseModelConfig({
      ...llama,
      bos_token_id: null,
      eos_token_id: [5, 99, 100, -1, "x"],
      torch_dtype: 7,
    });
    expect(config.beginToken).toBeUndefined();
    expect(config.endTokens).toEqual([5, 99]);
    expect(config.dtype).toBeUndefined();
  });
});

describe("hostile configurations", () => {
  it("only typed errors come of text", () => {
    const texts = ["", "{", "null", "[]", '"llama"', '{"model_type": 3}', "[".repeat(100_000), '{"a":'.repeat(100_000)];
    for (const text of texts) expect(() => readModelConfig(text)).toThrow(BitwrightError);
    expect(() => readModelConfig(" ".repeat(CONFIG_LIMITS.textLength + 1))).toThrow("characters");
  });

  it("only typed errors come of mutated files", () => {
    const files = FIXTURES.flatMap((fixture) =>
      ["config.json", "config.v4.json"].map((name) => readJson(fixture, name)),
    );
    const keys = [...new Set(files.flatMap((file) => Object.keys(file))), "layer_types", "partial_rotary_factor"];
    const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, -1, 1, 2, 3, 1e308, -0, 2 ** 31, 2 ** 53));
    const words = fc.constantFrom("linear", "llama3", "yarn", "sliding_attention", "silu", "qwen3", "__proto__");
    const value = fc.oneof(number, words, fc.jsonValue(), fc.array(words, { maxLength: 4 }));
    const rope = fc.dictionary(
      fc.constantFrom("type", "rope_type", "factor", "rope_theta", "low_freq_factor", "high_freq_factor", "__proto__"),
      fc.oneof(number, words),
    );
    const change = fc.tuple(fc.constantFrom(...keys), fc.option(fc.oneof(value, rope), { nil: undefined }));
    fc.assert(
      fc.property(fc.constantFrom(...files), fc.array(change, { minLength: 1, maxLength: 4 }), (file, changes) => {
        const text = JSON.stringify({ ...file, ...Object.fromEntries(changes) });
        try {
          const config = readModelConfig(text);
          // what is accepted is sound
          expect(config.heads % config.keyValueHeads).toBe(0);
          if (config.rope) expect(config.headSize % 2).toBe(0);
          expect(config.slidingWindow).toHaveLength(config.layers);
        } catch (error) {
          if (!(error instanceof BitwrightError)) throw error;
          expect(error.message.length).toBeLessThan(2000);
        }
      }),
      { numRuns: 2000, seed: 1 },
    );
  });
});
