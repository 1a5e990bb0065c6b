import { afterEach, describe, expect, it } from "vitest";
import { expectedLogits, fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { FAMILY_LOGITS } from "../../test/tolerances.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { type Decoder, openDecoder } from "../model/decoder.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { encodePrompt, type GenerationEvent, type GenerationOptions, generate } from "./generate.js";
import { computeLogits } from "./logits.js";

const engine = createReferenceEngine();
afterEach(() => expect(engine.liveBytes()).toBe(0));

const FIXTURE = "llama-gqa-llama3-tied";
const { tokens, logits, shape } = expectedLogits(FIXTURE);
const open = (contextLength?: number): Promise<Decoder> => {
  const config = fixtureConfig(FIXTURE);
  return openDecoder(
    engine,
    { ...config, contextLength: contextLength ?? config.contextLength },
    fixtureWeights(FIXTURE),
  );
};

/** Ids as text: "12 7 ". */
const numbers: Tokenizer = {
  size: shape[2],
  beginTokens: [1],
  encode: (text) => Int32Array.from(text.split(" ").filter(Boolean), Number),
  decode: (ids) => Array.from(ids, (id) => `${id} `).join(""),
  stream: () => ({ push: (id) => `${id} `, flush: () => "" }),
  idOf: () => undefined,
};

async function run(decoder: Decoder, prompt: readonly number[], options: GenerationOptions) {
  const events: GenerationEvent[] = [];
  for await (const event of generate(decoder, numbers, Int32Array.from(prompt), options)) events.push(event);
  const end = events.at(-1)!;
  if (end.type !== "end") throw new Error("the last event is not the end");
  return { ids: events.flatMap((event) => (event.type === "token" ? event.id : [])), end };
}

describe("generate", () => {
  it("takes the likeliest token of the whole sequence's logits at every step", async () => {
    const decoder = await open();
    const { ids, end } = await run(decoder, tokens[0], { maxTokens: 8, endTokens: [] });
    const sequence = [...tokens[0], ...ids];
    const { values } = await computeLogits(decoder, [sequence]);
    decoder.close();
    const vocabulary = shape[2];
    for (const [index, id] of ids.entries()) {
      const position = tokens[0].length + index - 1;
      const row = values.subarray(position * vocabulary, (position + 1) * vocabulary);
      expect(id).toBe(row.indexOf(Math.max(...row)));
    }
    expect(end).toMatchObject({ reason: "max tokens", tokens: 8, promptTokens: tokens[0].length });
  });

  it("ends at an end token, which is not part of the text", async () => {
    const decoder = await open();
    const { ids } = await run(decoder, tokens[0], { maxTokens: 4, endTokens: [] });
    const ended = await run(decoder, tokens[0], { maxTokens: 4, endTokens: [ids[0]] });
    decoder.close();
    expect(ended.ids).toEqual([]);
    expect(ended.end).toMatchObject({ reason: "end token", tokens: 0 });
  });

  it("repeats by the seed", async () => {
    const decoder = await open();
    const sample = (seed: number) => run(decoder, [5, 6], { maxTokens: 12, temperature: 2, seed, endTokens: [] });
    expect((await sample(3)).ids).toEqual((await sample(3)).ids);
    expect((await sample(3)).ids).not.toEqual((await sample(4)).ids);
    decoder.close();
  });

  it("stops where the context is full, and refuses a prompt that leaves no room", async () => {
    const decoder = await open(10);
    const full = await run(decoder, [5, 6, 7, 8, 9, 10, 11], { maxTokens: 50, endTokens: [] });
    expect(full.ids).toHaveLength(3);
    expect(full.end.reason).toBe("context");
    const exact = await run(decoder, [5, 6, 7, 8, 9, 10, 11], { maxTokens: 3, endTokens: [] });
    expect(exact.end.reason).toBe("max tokens");
    await expect(run(decoder, new Array(10).fill(5), {})).rejects.toThrow(/context of 10 leaves no room/);
    await expect(run(decoder, [], {})).rejects.toThrow(/prompt is empty/);
    await expect(run(decoder, [5], { maxTokens: 0 })).rejects.toThrow(/max-tokens/);
    decoder.close();
  });

  it("frees its cache when the reader leaves early and when the signal fires", async () => {
    const decoder = await open();
    for await (const event of generate(decoder, numbers, Int32Array.of(5), { maxTokens: 9, endTokens: [] })) {
      if (event.type === "token") break;
    }
    const controller = new AbortController();
    const options = { maxTokens: 9, endTokens: [], signal: controller.signal };
    const text = generate(decoder, numbers, Int32Array.of(5), options);
    await text.next();
    controller.abort();
    await expect(text.next()).rejects.toMatchObject({ kind: "aborted" });
    decoder.close();
  });

  it("puts the tokenizer's beginning before a prompt", () => {
    expect([...encodePrompt(numbers, "5 6")]).toEqual([1, 5, 6]);
  });
});

describe("computeLogits", () => {
  it("gives transformers' logits, in one pass and token by token", async () => {
    const decoder = await open();
    const largest = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const cached of [false, true]) {
      const result = await computeLogits(decoder, tokens, { cached });
      expect(result.shape).toEqual(shape);
      const worst = result.values.reduce((most, value, i) => Math.max(most, Math.abs(value - logits[i])), 0);
      expect(worst / largest).toBeLessThanOrEqual(FAMILY_LOGITS);
    }
    decoder.close();
  });

  it("takes no tokens and refuses rows of different lengths", async () => {
    const decoder = await open();
    for (const cached of [false, true]) {
      expect((await computeLogits(decoder, [[], []], { cached })).shape).toEqual([2, 0, shape[2]]);
      await expect(computeLogits(decoder, [[1], [1, 2]], { cached })).rejects.toMatchObject({ kind: "usage" });
      await expect(computeLogits(decoder, [[-1]], { cached })).rejects.toMatchObject({ kind: "usage" });
      await expect(computeLogits(decoder, [], { cached })).rejects.toMatchObject({ kind: "usage" });
    }
    decoder.close();
  });
});
