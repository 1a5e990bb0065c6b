import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BitwrightError } from "../errors.js";
import { compilePattern } from "./pattern.js";

const NAMES = [
  "model.layers.0.self_attn.q_proj",
  "model.layers.11.mlp.down_proj",
  "model.decoder.layers.3.fc1",
  "lm_head",
  "transformer.h.7.self_attention.query_key_value",
];

describe("patterns of modules", () => {
  it.each([
    ".*mlp\\.down_proj",
    "^model\\.layers\\.(?:[0-9]|1[01])\\.",
    ".*\\.(q|k|v)_proj$",
    "lm_head",
    "model\\.layers\\.\\d+\\.self_attn\\..*",
    ".*[^0-9]1{2}.*",
    "(a|b)?.*h\\.7.*",
    ".*fc[12]",
    "[\\w.]*proj",
    "x*?y*",
    "m{0,2}odel.+?[]x0]",
  ])("%s matches what the built-in engine does", (pattern) => {
    const ours = compilePattern(pattern, "config.json");
    const whole = compilePattern(pattern, "config.json", true);
    const theirs = pattern.includes("[]") ? pattern.replace("[]", "[\\]") : pattern;
    for (const name of NAMES) {
      expect(ours(name)).toBe(new RegExp(`^(?:${theirs})`).test(name));
      expect(whole(name)).toBe(new RegExp(`^(?:${theirs})$`).test(name));
    }
  });

  it("takes no longer for patterns that make others backtrack", () => {
    const name = "a".repeat(60);
    expect(compilePattern("(a*)*(a|a)*(((a+)+)+)+b", "config.json")(name)).toBe(false);
    expect(compilePattern(`${"a?".repeat(60)}${"a".repeat(60)}`, "config.json")(name)).toBe(true);
  });

  it.each([
    "(?=x)",
    "(?<n>x)",
    "x**",
    "[a",
    "(a",
    "a)",
    "\\1",
    "\\",
    "*a",
    "a{999}",
    "[z-a]",
    "(".repeat(9),
    "x".repeat(3000),
  ])("refuses %s", (pattern) => expect(() => compilePattern(pattern, "config.json")).toThrow(BitwrightError));

  it("gives typed errors only, and agrees with the built-in engine where both know a pattern", () => {
    const symbols = fc.string({ unit: fc.constantFrom(..."ab.*+?()[]|^$-1{},"), maxLength: 10 });
    fc.assert(
      fc.property(symbols, fc.string({ unit: fc.constantFrom(..."ab1."), maxLength: 8 }), (pattern, name) => {
        let ours: boolean;
        try {
          ours = compilePattern(pattern, "config.json", true)(name);
        } catch (error) {
          expect(error).toBeInstanceOf(BitwrightError);
          return;
        }
        let theirs: RegExp;
        try {
          theirs = new RegExp(`^(?:${pattern.replace(/\[(\^?)\]/g, "[$1\\]")})$`);
        } catch {
          return;
        }
        expect(ours).toBe(theirs.test(name));
      }),
      { numRuns: 3000 },
    );
  });
});
