import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeInChunks } from "./chunks.js";
import { splitPiecesAtWords } from "./pieces.js";
import { createTokenizer, type Tokenizer } from "./tokenizer.js";

interface Golden {
  bundled: { text: string; ids: number[]; decoded: string }[];
  words: { text: string; ids: number[]; decoded: string }[];
  slices: Record<string, { count: number; sha256: string }>;
}

const golden = JSON.parse(readFileSync("test/golden/text/tokens.json", "utf8")) as Golden;
const wordsJson = readFileSync("test/golden/text/word-tokenizer.json", "utf8");
let bundled: Tokenizer;
let words: Tokenizer;

beforeAll(() => {
  bundled = createTokenizer(readFileSync("models/wiki-7m/tokenizer.json", "utf8"));
  words = createTokenizer(wordsJson);
});

function streamed(tokenizer: Tokenizer, ids: ArrayLike<number>): string {
  const stream = tokenizer.stream();
  return Array.from(ids, (id) => stream.push(id)).join("") + stream.flush();
}

describe("createTokenizer", () => {
  it("gives the ids and texts of the tokenizers library in Rust", () => {
    for (const { text, ids, decoded } of golden.bundled) {
      expect([...bundled.encode(text)], JSON.stringify(text)).toEqual(ids);
      expect(bundled.decode(ids)).toBe(decoded);
    }
    for (const { text, ids, decoded } of golden.words) {
      expect([...words.encode(text)], JSON.stringify(text)).toEqual(ids);
      expect(words.decode(ids)).toBe(decoded);
    }
  });

  it("encodes whole files as the library in Rust", () => {
    for (const [name, expected] of Object.entries(golden.slices)) {
      const ids = bundled.encode(readFileSync(`data/${name}.txt`, "utf8"));
      expect(ids.length).toBe(expected.count);
      expect(createHash("sha256").update(new Uint8Array(ids.buffer)).digest("hex")).toBe(expected.sha256);
    }
  });

  it("gives nothing for nothing", () => {
    expect(bundled.encode("")).toEqual(new Int32Array(0));
    expect(bundled.decode([])).toBe("");
    expect(bundled.stream().flush()).toBe("");
  });

  it("leaves out special tokens and ids that it does not know", () => {
    const ids = [1, ...bundled.encode("Hello"), 2, 8192, 1_000_000];
    expect(bundled.decode(ids)).toBe("Hello");
    expect(streamed(bundled, ids)).toBe("Hello");
    expect(bundled.idOf("</s>")).toBe(2);
    expect(bundled.idOf("no such token")).toBeUndefined();
    expect(bundled.size).toBe(8192);
    expect(bundled.beginTokens).toEqual([1]);
    expect(words.beginTokens).toEqual([]);
  });

  it("refuses what is not a tokenizer.json, by a typed error", () => {
    expect(() => createTokenizer("{")).toThrow(/not valid JSON/);
    expect(() => createTokenizer("[]")).toThrow(/expected a JSON object/);
    expect(() => createTokenizer("{}")).toThrow(/no `model`/);
    const other = JSON.stringify({ ...JSON.parse(wordsJson), pre_tokenizer: { type: "Unheard" } });
    expect(() => createTokenizer(other)).toThrow(expect.objectContaining({ kind: "unsupported" }));
  });
});

describe("a text stream", () => {
  it("gives in the end what decode gives, for any ids", () => {
    const ids = (size: number) => fc.array(fc.integer({ min: 0, max: size - 1 }), { maxLength: 40 });
    fc.assert(fc.property(ids(8192), (list) => streamed(bundled, list) === bundled.decode(list)));
    fc.assert(fc.property(ids(words.size), (list) => streamed(words, list) === words.decode(list)));
  });

  it("holds back a character until all of its bytes are there", () => {
    const ids = [...bundled.encode("\u{1f600}!")];
    expect(ids.length).toBeGreaterThan(2);
    const stream = bundled.stream();
    const pieces = ids.map((id) => stream.push(id));
    expect(pieces.join("")).toBe("\u{1f600}!");
    expect(pieces.some((piece) => piece.includes("\ufffd"))).toBe(false);
    expect(pieces[0]).toBe("");
  });

  it("gives an unfinished character as U+FFFD at the end", () => {
    const ids = bundled.encode("ok \u{1f600}").slice(0, -1);
    expect(streamed(bundled, ids)).toBe("ok \ufffd");
  });
});

describe("encodeInChunks", () => {
  it("gives the ids of the whole", () => {
    for (const name of Object.keys(golden.slices)) {
      const text = readFileSync(`data/${name}.txt`, "utf8").slice(0, 60_000);
      const whole = bundled.encode(text);
      let calls = 0;
      const encode = (part: string) => {
        calls++;
        return [...bundled.encode(part)];
      };
      for (const chunk of [700, 5000, 1e6]) expect(encodeInChunks(encode, text, chunk)).toEqual(whole);
      expect(calls).toBeGreaterThan(20);
    }
  });

  it("finds line ends that are no place to cut, and never cuts what marks its beginning", () => {
    // blank lines: a run of line ends is one token
    const text = "one\n\n\n\ntwo\n\n\nthree".repeat(50);
    expect(encodeInChunks((part) => [...bundled.encode(part)], text, 3)).toEqual(bundled.encode(text));
    const marked = "one two\nthree\n".repeat(200);
    const lengths: number[] = [];
    const encode = (part: string) => {
      lengths.push(part.length);
      return [...words.encode(part)];
    };
    expect(encodeInChunks(encode, marked, 100)).toEqual(words.encode(marked));
    expect(lengths.at(-1)).toBe(marked.length);
  });
});

describe("splitPiecesAtWords", () => {
  const definition = JSON.parse(wordsJson) as Record<string, unknown>;

  it("changes no id", () => {
    const whole = new HuggingFaceTokenizer(definition, {}) as unknown as {
      encode(text: string, options: object): { ids: number[] };
    };
    const text = readFileSync("data/c4-slice.txt", "utf8").slice(0, 30_000);
    expect([...words.encode(text)]).toEqual(whole.encode(text, { add_special_tokens: false }).ids);
  });

  it("leaves a tokenizer alone where a token has a word's start inside", () => {
    const model = definition.model as { merges: [string, string][] };
    const crossing = { ...definition, model: { ...model, merges: [...model.merges, ["s", "\u2581t"]] } };
    expect(splitPiecesAtWords({}, crossing)).toBe(false);
    expect(splitPiecesAtWords({}, definition)).toBe(true);
  });
});
