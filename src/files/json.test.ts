import { describe, expect, it } from "vitest";
import { parseJson, readJson, readJsonObject } from "./json.js";
import { memoryFolder } from "./memory.js";

const folder = (text: string | Uint8Array) =>
  memoryFolder("m", new Map([["a.json", typeof text === "string" ? new TextEncoder().encode(text) : text]]));

describe("JSON files", () => {
  it("are read as UTF-8", async () => {
    expect(await readJson(folder('{"é": ["]", "\\"[", 1]}'), "a.json")).toEqual({ é: ["]", '"[', 1] });
  });

  it("are refused beyond their bounds", async () => {
    await expect(readJson(folder("[1,2]"), "a.json", 4)).rejects.toThrow("m/a.json has 5 bytes, more than the 4");
    await expect(readJson(folder("[1,"), "a.json")).rejects.toThrow(/m\/a.json is not JSON/);
    await expect(readJson(folder(Uint8Array.of(0x22, 0xc3, 0x22)), "a.json")).rejects.toThrow(
      "m/a.json is not UTF-8 text",
    );
    await expect(readJsonObject(folder("[]"), "a.json")).rejects.toThrow("m/a.json: expected a JSON object");
    await expect(readJson(folder("1"), "b.json")).rejects.toThrow("there is no file b.json in m");
  });

  it("may not be nested so deep that walking them overflows the stack", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(JSON.stringify(parseJson(nested(200), "x"))).toBe(nested(200));
    expect(() => parseJson(nested(201), "x")).toThrow("x is JSON nested more than 200 deep");
    expect(parseJson(JSON.stringify({ a: "[".repeat(1000) }), "x")).toEqual({ a: "[".repeat(1000) });
  });
});
