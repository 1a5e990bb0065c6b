import { afterEach, describe, expect, it } from "vitest";
import { expectedLogits, fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { type Decoder, openDecoder } from "../model/decoder.js";
import { type EvaluationEvent, evaluate, evaluateAll } from "./evaluate.js";

const engine = createReferenceEngine();
afterEach(() => expect(engine.liveBytes()).toBe(0));

const open = (fixture: string, weightBudget?: number): Promise<Decoder> =>
  openDecoder(engine, fixtureConfig(fixture), fixtureWeights(fixture), { weightBudget });

/** -log softmax(row)[target] and the probabilities, in f64. */
function softmax(row: Float32Array): Float64Array {
  const largest = row.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  const weights = Float64Array.from(row, (value) => Math.exp(value - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

const FIXTURE = "llama-linear-bias";
const { tokens, shape, logits } = expectedLogits(FIXTURE);
const windows = tokens.map((row) => Int32Array.from(row));
const [, length, vocabulary] = shape;
const rowAt = (values: Float32Array, row: number, position: number) =>
  values.subarray((row * length + position) * vocabulary, (row * length + position + 1) * vocabulary);

describe("evaluate", () => {
  it("is the perplexity of transformers' logits", async () => {
    let loss = 0;
    for (const [row, window] of windows.entries()) {
      for (let position = 0; position + 1 < length; position++) {
        loss -= Math.log(softmax(rowAt(logits, row, position))[window[position + 1]]);
      }
    }
    loss /= windows.length * (length - 1);
    const decoder = await open(FIXTURE);
    const result = await evaluate(decoder, windows);
    decoder.close();
    expect(result.tokens).toBe(windows.length * (length - 1));
    expect(result.windows).toBe(2);
    expect(Math.abs(result.loss - loss)).toBeLessThan(1e-5);
    expect(result.perplexity).toBeCloseTo(Math.exp(loss), 3);
    expect(result.klDivergence).toBeUndefined();
  });

  it("is refused where values were too large for the engine's precision", async () => {
    const decoder = await open(FIXTURE);
    const { overflowed } = engine;
    engine.overflowed = async () => true;
    try {
      await expect(evaluate(decoder, windows)).rejects.toMatchObject({
        kind: "numeric",
        message: expect.stringMatching(/too large for products in/),
        remedy: expect.stringMatching(/--precision tf32/),
      });
    } finally {
      engine.overflowed = overflowed;
      decoder.close();
    }
  });

  it("measures KL and top-1 agreement as their formulas say, in any slabs and groups", async () => {
    const [decoder, against] = [await open("llama-gqa-llama3-tied"), await open(FIXTURE)];
    let kl = 0;
    let agreed = 0;
    const mine = await engine.scope(async () => engine.read(await decoder.logits(tokens)));
    const argmax = (row: Float64Array) => row.indexOf(Math.max(...row));
    for (const row of windows.keys()) {
      for (let position = 0; position + 1 < length; position++) {
        const q = softmax(rowAt(mine, row, position));
        const p = softmax(rowAt(logits, row, position));
        p.forEach((probability, token) => {
          kl += probability * Math.log(probability / q[token]);
        });
        if (argmax(p) === argmax(q)) agreed++;
      }
    }
    const count = windows.length * (length - 1);
    const whole = await evaluate(decoder, windows, { against });
    expect(Math.abs(whole.klDivergence! - kl / count)).toBeLessThan(1e-5);
    expect(whole.topAgreement).toBeCloseTo(agreed / count, 12);
    const pieces = await evaluate(decoder, windows, { against, slabBytes: 4 * vocabulary * 5, hiddenBudget: 1 });
    const single = await evaluate(against, windows);
    decoder.close();
    against.close();
    expect({ ...pieces, seconds: 0 }).toEqual({ ...whole, seconds: 0 });
    expect(whole.againstPerplexity).toBe(single.perplexity);
  });

  it("gives several models what each gets alone", async () => {
    const [first, second, against] = [await open("llama-gqa-llama3-tied"), await open("qwen3"), await open(FIXTURE)];
    const together = await evaluateAll([first, second], windows, { against });
    const alone = [await evaluate(first, windows, { against }), await evaluate(second, windows, { against })];
    for (const decoder of [first, second, against]) decoder.close();
    expect(together.map((result) => ({ ...result, seconds: 0 }))).toEqual(
      alone.map((result) => ({ ...result, seconds: 0 })),
    );
  });

  it("finds nothing lost between a model and itself", async () => {
    const [decoder, against] = [await open(FIXTURE), await open(FIXTURE, 0)];
    const result = await evaluate(decoder, windows, { against });
    decoder.close();
    against.close();
    expect(result.klDivergence).toBe(0);
    expect(result.topAgreement).toBe(1);
  });

  it("tells how far it is, and stops by the signal with nothing left behind", async () => {
    const decoder = await open(FIXTURE);
    const events: EvaluationEvent[] = [];
    const result = await evaluate(decoder, windows, { onEvent: (event) => events.push(event) });
    expect(events.map(({ done }) => done)).toEqual([1, 2]);
    expect(events[1].perplexity).toBe(result.perplexity);
    const controller = new AbortController();
    const stopped = evaluate(decoder, [...windows, ...windows], {
      onEvent: () => controller.abort(),
      signal: controller.signal,
    });
    await expect(stopped).rejects.toMatchObject({ kind: "aborted" });
    decoder.close();
  });

  it("refuses models of different vocabularies, short windows and logits that are not finite", async () => {
    const decoder = await open(FIXTURE);
    const config = { ...fixtureConfig(FIXTURE), vocabulary: vocabulary + 1 };
    const other = { engine, config } as Decoder;
    await expect(evaluate(decoder, windows, { against: other })).rejects.toMatchObject({ kind: "usage" });
    await expect(evaluate(decoder, [Int32Array.of(1)])).rejects.toMatchObject({ kind: "usage" });
    decoder.close();
    const source = fixtureWeights(FIXTURE);
    const broken = await openDecoder(engine, fixtureConfig(FIXTURE), {
      ...source,
      read: async (name, shape) => (await source.read(name, shape)).fill(name.endsWith("norm.weight") ? 1e38 : 1),
    });
    await expect(evaluate(broken, windows)).rejects.toMatchObject({ kind: "numeric" });
    broken.close();
  });
});
