import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { BUNDLED_TEXTS, readText } from "./texts.js";

const folder = mkdtempSync(join(tmpdir(), "bitwright-texts-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("readText", () => {
  it("knows the bundled texts by name", async () => {
    for (const name of Object.keys(BUNDLED_TEXTS)) {
      const { name: shown, text } = await readText(name);
      expect(shown).toBe(name);
      expect(text.length).toBeGreaterThan(100_000);
    }
  });

  it("reads plain text and .jsonl by path", async () => {
    writeFileSync(join(folder, "a.txt"), "plain");
    writeFileSync(join(folder, "b.jsonl"), '{"text": "one"}\n{"text": "two"}\n');
    expect(await readText(join(folder, "a.txt"))).toEqual({ name: "a.txt", text: "plain" });
    expect((await readText(join(folder, "b.jsonl"))).text).toBe("one\n\ntwo");
  });

  it("refuses what is not there, what is a folder, and names that objects inherit", async () => {
    for (const path of [join(folder, "none.txt"), folder, "constructor", "__proto__"]) {
      await expect(readText(path)).rejects.toMatchObject({ kind: "usage", remedy: expect.stringContaining("c4") });
    }
  });
});
