import { describe, expect, it } from "vitest";
import { parseCorpus } from "./corpus.js";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("parseCorpus", () => {
  it("takes plain text as it is, without a byte order mark", () => {
    expect(parseCorpus("a.txt", bytes("one\r\ntwo\n"))).toBe("one\r\ntwo\n");
    expect(parseCorpus("a.txt", bytes("\ufeffone"))).toBe("one");
    expect(parseCorpus("a.json", bytes('{"text": "x"}'))).toBe('{"text": "x"}');
  });

  it("joins the documents of a .jsonl file by a blank line", () => {
    const lines = '{"text": "one"}\r\n\n{"id": 2, "text": "two\\nthree"}\n';
    expect(parseCorpus("a.JSONL", bytes(lines))).toBe("one\n\ntwo\nthree");
  });

  it("names the line that is wrong", () => {
    expect(() => parseCorpus("a.jsonl", bytes('{"text": "one"}\n\n{"text": '))).toThrow(
      /a\.jsonl, line 3: not valid JSON/,
    );
    expect(() => parseCorpus("a.jsonl", bytes('{"text": "one"}\n{"content": "x"}'))).toThrow(
      /line 2: expected .*"text"/,
    );
    expect(() => parseCorpus("a.jsonl", bytes('{"text": 5}'))).toThrow(/line 1/);
    expect(() => parseCorpus("a.jsonl", bytes("null"))).toThrow(/line 1/);
  });

  it("refuses an empty text and bytes that are not UTF-8", () => {
    expect(() => parseCorpus("a.txt", bytes(" \n"))).toThrow(expect.objectContaining({ kind: "usage" }));
    expect(() => parseCorpus("a.jsonl", bytes(""))).toThrow(/holds no text/);
    expect(() => parseCorpus("a.txt", Uint8Array.of(0x61, 0xff))).toThrow(expect.objectContaining({ kind: "format" }));
  });
});
