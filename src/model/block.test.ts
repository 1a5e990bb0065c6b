import { afterEach, describe, expect, it } from "vitest";
import { fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createRandom } from "../random.js";
import type { F32 } from "../tensor/index.js";
import { type BlockState, blockLinears, disposeBlock, keepBlock, loadBlock } from "./block.js";
import { parseModelConfig } from "./config.js";
import { createRopeTables } from "./rope.js";
import { type BlockContext, blockStages, forwardBlock } from "./stages.js";
import { checkWeights, parameterCount } from "./tensors.js";
import type { WeightSource } from "./weights.js";

const engine = createReferenceEngine();
afterEach(() => expect(engine.liveBytes()).toBe(0));

const random = createRandom(5);
const randomHidden = (batch: number, length: number, width: number): F32 =>
  engine.upload(
    Float32Array.from({ length: batch * length * width }, () => random.normal()),
    [batch, length, width],
    "f32",
  );
const contextOf = (fixture: string, layer = 0): BlockContext => {
  const config = fixtureConfig(fixture);
  return { engine, config, layer, rope: createRopeTables(engine, config, 16), start: 0 };
};

describe("blockLinears", () => {
  it("lists names and shapes in the order of computation", () => {
    const linears = blockLinears(fixtureConfig("qwen3"), 1);
    expect(linears.map(({ slot, rows, columns, bias }) => [slot, rows, columns, bias])).toEqual([
      ["query", 64, 48, false],
      ["key", 32, 48, false],
      ["value", 32, 48, false],
      ["output", 48, 64, false],
      ["gate", 64, 48, false],
      ["up", 64, 48, false],
      ["down", 48, 64, false],
    ]);
    expect(linears[0].name).toBe("model.layers.1.self_attn.q_proj");
    expect(linears[6].name).toBe("model.layers.1.mlp.down_proj");
  });

  it("knows the biases", () => {
    const biased = blockLinears(fixtureConfig("qwen2-full"), 0).filter(({ bias }) => bias);
    expect(biased.map(({ slot }) => slot)).toEqual(["query", "key", "value"]);
  });
});

describe("checkWeights and parameterCount", () => {
  it("agree with the checkpoints", () => {
    for (const fixture of ["llama-gqa-llama3-tied", "llama-linear-bias", "mistral-full-unprefixed", "qwen3"]) {
      checkWeights(fixtureConfig(fixture), fixtureWeights(fixture));
    }
    const config = fixtureConfig("llama-gqa-llama3-tied");
    const block = 64 * (64 + 32 + 32 + 64 + 3 * 96) + 2 * 64;
    expect(parameterCount(config)).toBe(96 * 64 + 2 * block + 64);
    expect(parameterCount({ ...config, tieEmbeddings: false })).toBe(2 * 96 * 64 + 2 * block + 64);
  });

  // parameters of transformers' classes at the sizes of the released models
  it.each([
    ["opt-125m", 125_239_296, { hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, ffn_dim: 3072 }],
    [
      "opt-350m",
      331_196_416,
      {
        hidden_size: 1024,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        ffn_dim: 4096,
        word_embed_proj_dim: 512,
        do_layer_norm_before: false,
      },
    ],
    ["falcon-7b", 6_921_720_704, { hidden_size: 4544, num_hidden_layers: 32, num_attention_heads: 71 }],
    [
      "falcon-40b",
      41_303_293_952,
      {
        hidden_size: 8192,
        num_hidden_layers: 60,
        num_attention_heads: 128,
        num_kv_heads: 8,
        new_decoder_architecture: true,
      },
    ],
    [
      "falcon-11b",
      11_102_822_400,
      {
        hidden_size: 4096,
        num_hidden_layers: 60,
        num_attention_heads: 32,
        num_kv_heads: 8,
        ffn_hidden_size: 16384,
        new_decoder_architecture: true,
        num_ln_in_parallel_attn: 1,
        tie_word_embeddings: false,
      },
    ],
    [
      "falcon-rw-1b",
      1_311_625_216,
      {
        hidden_size: 2048,
        num_hidden_layers: 24,
        num_attention_heads: 32,
        vocab_size: 50304,
        alibi: true,
        bias: true,
        multi_query: false,
        parallel_attn: false,
      },
    ],
  ])("count the weights of %s", (name, expected, config) => {
    const [family] = name.split("-");
    const vocabulary = family === "opt" ? 50272 : 65024;
    expect(parameterCount(parseModelConfig({ model_type: family, vocab_size: vocabulary, ...config }))).toBe(expected);
  });

  it("name what is missing and what has another shape", () => {
    const source = fixtureWeights("llama-mha");
    const config = fixtureConfig("llama-mha");
    const gone: WeightSource = {
      ...source,
      shape: (name) => (name.includes("1.mlp.up") ? undefined : source.shape(name)),
    };
    expect(() => checkWeights(config, gone)).toThrow("model.layers.1.mlp.up_proj.weight");
    expect(() => checkWeights({ ...config, mlp: 73 }, source)).toThrow("[73, 40]");
    expect(() => checkWeights({ ...config, layers: 3 }, source)).toThrow("model.layers.2.self_attn.q_proj.weight");
    const tied = fixtureWeights("qwen2-full");
    expect(() => checkWeights({ ...fixtureConfig("qwen2-full"), tieEmbeddings: false }, tied)).toThrow(
      "lm_head.weight",
    );
  });
});

describe("loadBlock", () => {
  it("gives the weights to the scope, or to the caller who keeps them", async () => {
    const config = fixtureConfig("llama-linear-bias");
    const source = fixtureWeights("llama-linear-bias");
    await engine.scope(async () => {
      const { linears, vectors } = await loadBlock(engine, config, source, 1);
      expect(Object.keys(linears)).toEqual(["query", "key", "value", "output", "gate", "up", "down"]);
      expect(linears.down.bias?.shape).toEqual([48]);
      expect(Object.keys(vectors)).toEqual(["attentionNorm", "mlpNorm"]);
    });
    expect(engine.liveBytes()).toBe(0);
    const kept = await engine.scope(async () => keepBlock(engine, await loadBlock(engine, config, source, 1)));
    expect(kept.linears.query.weight.disposed).toBe(false);
    disposeBlock(kept);
  });

  it("leaves nothing behind when a tensor cannot be read", async () => {
    const source = fixtureWeights("llama-mha");
    const failing: WeightSource = {
      ...source,
      read: (name, shape) => (name.includes("down") ? Promise.reject(new Error("torn")) : source.read(name, shape)),
    };
    await expect(loadBlock(engine, fixtureConfig("llama-mha"), failing, 0)).rejects.toThrow("torn");
  });
});

describe("blockStages", () => {
  it("runs as the block does, without changing the state before", async () => {
    for (const fixture of ["qwen3", "llama-linear-bias", "mistral-window"]) {
      await engine.scope(async () => {
        const context = contextOf(fixture);
        const weights = await loadBlock(engine, context.config, fixtureWeights(fixture), 0);
        const hidden = randomHidden(2, 7, context.config.hidden);
        const before = await engine.read(hidden);
        let state: BlockState = { hidden };
        const shared: string[][] = [];
        for (const stage of blockStages(context, weights)) {
          const input = stage.input(state);
          const columns = new Set(stage.slots.map((slot) => weights.linears[slot].weight.shape[1]));
          expect([...columns]).toEqual([input.shape[1]]);
          expect(input.shape[0]).toBe(14);
          shared.push(stage.slots);
          state = stage.advance(state, input);
        }
        expect(shared).toEqual([["query", "key", "value"], ["output"], ["gate", "up"], ["down"]]);
        expect(state.carry).toBeUndefined();
        expect(await engine.read(forwardBlock(context, weights, hidden))).toEqual(await engine.read(state.hidden));
        expect(await engine.read(hidden)).toEqual(before);
      });
    }
  });

  it("keeps the residual stream's tensor where it does not change", async () => {
    await engine.scope(async () => {
      const context = contextOf("llama-mha");
      const weights = await loadBlock(engine, context.config, fixtureWeights("llama-mha"), 0);
      const [attention, output, gated] = blockStages(context, weights);
      const start: BlockState = { hidden: randomHidden(1, 3, context.config.hidden) };
      const mixed = attention.advance(start, attention.input(start));
      expect(mixed.hidden).toBe(start.hidden);
      expect(output.input(mixed)).toBe(mixed.carry);
      const added = output.advance(mixed, output.input(mixed));
      expect(added.hidden).not.toBe(start.hidden);
      expect(gated.advance(added, gated.input(added)).hidden).toBe(added.hidden);
    });
  });

  it("reads the weights when it is called: a replaced linear counts", async () => {
    await engine.scope(async () => {
      const context = contextOf("llama-mha");
      const weights = await loadBlock(engine, context.config, fixtureWeights("llama-mha"), 0);
      const stages = blockStages(context, weights);
      for (const slot of ["output", "down"]) {
        const { weight } = weights.linears[slot];
        weights.linears[slot] = { weight: engine.create(weight.shape) };
      }
      const hidden = randomHidden(1, 3, context.config.hidden);
      let state: BlockState = { hidden };
      for (const stage of stages) state = stage.advance(state, stage.input(state));
      expect(await engine.read(state.hidden)).toEqual(await engine.read(hidden)); // both branches add zero
    });
  });

  it("is causal, and blind beyond a sliding window", async () => {
    await engine.scope(async () => {
      const context = contextOf("mistral-window"); // window 5
      const { hidden: width } = context.config;
      const weights = await loadBlock(engine, context.config, fixtureWeights("mistral-window"), 0);
      const hidden = randomHidden(1, 12, width);
      const plain = await engine.read(forwardBlock(context, weights, hidden));
      const changed = engine.copy(hidden);
      engine.write(changed, new Float32Array(width).fill(3), 4 * width); // position 4
      const other = await engine.read(forwardBlock(context, weights, changed));
      const moved = Array.from({ length: 12 }, (_, t) =>
        plain.subarray(t * width, (t + 1) * width).some((value, i) => value !== other[t * width + i]),
      );
      expect(moved).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((t) => t >= 4 && t < 9));
    });
  });

  it("quantizes what linears read and what attention takes, and shows the inputs as they were", async () => {
    await engine.scope(async () => {
      const plain = contextOf("llama-mha");
      const context: BlockContext = {
        ...plain,
        activations: { input: 4, query: 5, key: 3, value: 2, symmetric: true },
      };
      const { config, rope } = context;
      const { linears, vectors } = await loadBlock(engine, config, fixtureWeights("llama-mha"), 0);
      const hidden = randomHidden(2, 7, config.hidden);
      const rows = 14;
      const q = (x: F32, bits: number) => engine.fakeQuantizeRows(x, bits, true);
      const linear = (x: F32, slot: string) => engine.matmul(q(x, 4), linears[slot].weight, { transposeB: true });
      const norm = (x: F32, slot: string) => engine.view(engine.rmsNorm(x, vectors[slot], config.epsilon), [rows, 40]);
      const heads = (x: F32) => engine.view(x, [2, 7, 5, 8]);
      const turned = (x: F32) => engine.rope(heads(x), rope.cos, rope.sin, 0);
      // by hand
      const x = norm(hidden, "attentionNorm");
      const mixed = engine.attention(
        q(turned(linear(x, "query")), 5),
        q(turned(linear(x, "key")), 3),
        q(heads(linear(x, "value")), 2),
        { scale: 1 / Math.sqrt(8) },
      );
      const middle = engine.add(hidden, engine.view(linear(engine.view(mixed, [rows, 40]), "output"), hidden.shape));
      const y = norm(middle, "mlpNorm");
      const gated = engine.siluMultiply(linear(y, "gate"), linear(y, "up"));
      const expected = engine.add(middle, engine.view(linear(gated, "down"), hidden.shape));
      const got = forwardBlock(context, { linears, vectors }, hidden);
      expect(await engine.read(got)).toEqual(await engine.read(expected));
      const [first] = blockStages(context, { linears, vectors });
      expect(await engine.read(first.input({ hidden }))).toEqual(await engine.read(x));
    });
  });

  it("keeps the origin for a parallel MLP, and no longer", async () => {
    for (const fixture of ["falcon-7b", "falcon-40b-unprefixed"]) {
      await engine.scope(async () => {
        const context = contextOf(fixture);
        const weights = await loadBlock(engine, context.config, fixtureWeights(fixture), 0);
        const hidden = randomHidden(1, 3, context.config.hidden);
        let state: BlockState = { hidden };
        const origins: (F32 | undefined)[] = [];
        for (const stage of blockStages(context, weights)) {
          state = stage.advance(state, stage.input(state));
          origins.push(state.origin);
        }
        expect(origins).toEqual([undefined, hidden, undefined, undefined]);
        expect(await engine.read(forwardBlock(context, weights, hidden))).toEqual(await engine.read(state.hidden));
      });
    }
  });
});
