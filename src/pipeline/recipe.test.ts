import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BitwrightError } from "../errors.js";
import { DEFAULT_RECIPE, matches, planFor, recipeJsonSchema, resolveRecipe, trainingOf } from "./recipe.js";

describe("recipe", () => {
  it("fills in the defaults", () => {
    expect(resolveRecipe({})).toEqual(DEFAULT_RECIPE);
    expect(resolveRecipe({ method: "gptq", bits: 3, group: undefined })).toMatchObject({
      method: "gptq",
      bits: 3,
      group: 64,
    });
  });

  it.each([
    [{ bits: 5 }, /bits/],
    [{ codebook: 100 }, /codebook: expected a power of two/],
    [{ vectorlength: 4 }, /vectorlength/],
    [{ overrides: [{ match: "*", bitz: 3 }] }, /overrides\.0.*bitz/],
    [{ method: "awq" }, /method/],
    [{ schedule: "exponential" }, /schedule: .*"cosine"\|"linear"\|"constant"/],
    [{ clipNorm: -1 }, /clipNorm: .*>=0/],
    [{ clipNorm: Number.NaN }, /clipNorm/],
    [{ clipNorm: "1" }, /clipNorm: .*expected number/],
    [{ clipSpikes: 1 }, /clipSpikes: expected 0, or more than 1/],
    [{ clipSpikes: -1 }, /clipSpikes: .*>=0/],
    ["vptq", /recipe is not valid/],
  ])("refuses %j", (input, message) => {
    expect(() => resolveRecipe(input)).toThrow(message as RegExp);
    expect(() => resolveRecipe(input)).toThrow(BitwrightError);
  });

  it("only ever throws usage errors", () => {
    fc.assert(
      fc.property(fc.anything(), (input) => {
        try {
          resolveRecipe(input);
        } catch (error) {
          expect(error).toBeInstanceOf(BitwrightError);
          expect((error as BitwrightError).kind).toBe("usage");
        }
      }),
    );
  });

  it("lets the last matching override win and leaves linears alone", () => {
    const recipe = resolveRecipe({
      overrides: [
        { match: "model.layers.0.*", keep: true },
        { match: "*.down_proj", method: "gptq", bits: 4 },
        { match: "model.layers.0.mlp.down_proj", keep: false, bits: 8 },
      ],
    });
    expect(planFor(recipe, "model.layers.0.self_attn.q_proj")).toEqual({ method: "keep" });
    expect(planFor(recipe, "model.layers.1.mlp.down_proj")).toMatchObject({ method: "gptq", scheme: { bits: 4 } });
    expect(planFor(recipe, "model.layers.0.mlp.down_proj")).toMatchObject({ method: "gptq", scheme: { bits: 8 } });
    expect(planFor(recipe, "model.layers.1.mlp.up_proj")).toMatchObject({ method: "vptq", scheme: { codebook: 256 } });
  });

  it("says how training goes on", () => {
    expect(trainingOf(resolveRecipe({}))).toMatchObject({ schedule: "cosine", clipNorm: 0 });
    const words = { schedule: "linear", clipNorm: 0.3 };
    expect(trainingOf(resolveRecipe({ method: "omniquant", ...words }))).toMatchObject(words);
  });

  it("exports a JSON schema that names every word", () => {
    const schema = recipeJsonSchema() as { properties: Record<string, unknown> };
    expect(Object.keys(schema.properties).sort()).toEqual(Object.keys(DEFAULT_RECIPE).sort());
  });
});

describe("matches", () => {
  it("agrees with a regular expression", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom("a", "b", ".", "*") }),
        fc.string({ unit: fc.constantFrom("a", "b", ".") }),
        (pattern, name) => {
          const regex = new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", "[^]*")}$`);
          expect(matches(pattern, name)).toBe(regex.test(name));
        },
      ),
    );
  });

  it("does not take exponential time", () => {
    expect(matches("*a".repeat(50), "a".repeat(5000).concat("b"))).toBe(false);
  });
});
