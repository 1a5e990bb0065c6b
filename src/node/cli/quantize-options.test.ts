import { PassThrough } from "node:stream";
import { Command, CommanderError } from "commander";
import { describe, expect, it } from "vitest";
import { resolveRecipe } from "../../pipeline/recipe.js";
import { addQuantizeOptions, type QuantizeOptions, readRecipe } from "./quantize-options.js";
import { createTerminal } from "./terminal.js";

/** The recipe that a command line makes, and what was said about it. */
async function recipeOf(...words: string[]) {
  const command = new Command("quantize").exitOverride().configureOutput({ writeErr: () => {} });
  addQuantizeOptions(command);
  command.parse(words, { from: "user" });
  const warnings: string[] = [];
  const terminal = createTerminal({ json: true, quiet: true, stdout: new PassThrough(), stderr: new PassThrough() });
  terminal.warn = (line) => void warnings.push(line);
  const given = await readRecipe(command.opts<QuantizeOptions>(), terminal);
  return { given, recipe: resolveRecipe(given), warnings };
}

describe("the options of OmniQuant's training", () => {
  it("are words of the recipe", async () => {
    const { recipe, warnings } = await recipeOf(
      ...[
        "--method",
        "omniquant",
        "--schedule",
        "linear",
        "--clip-norm",
        "0.3",
        "--clip-spikes",
        "3",
        "--warm-up",
        "16",
        "--batch",
        "2",
        "--no-let",
      ],
    );
    expect(recipe).toMatchObject({
      schedule: "linear",
      clipNorm: 0.3,
      clipSpikes: 3,
      warmUp: 16,
      batch: 2,
      let: false,
      lwc: true,
    });
    expect(warnings).toEqual([]);
    expect((await recipeOf("--method", "omniquant")).recipe).toMatchObject({
      schedule: "cosine",
      warmUp: 32,
      clipNorm: 0,
      clipSpikes: 2,
    });
    // as published where the weights are not trained
    expect((await recipeOf("--method", "omniquant", "--train", "clip")).recipe).toMatchObject({
      epochs: 20,
      warmUp: 0,
      clipSpikes: 0,
    });
    expect((await recipeOf("--method", "omniquant", "--train", "clip", "--warm-up", "8")).recipe.warmUp).toBe(8);
    expect((await recipeOf("--method", "omniquant")).given.let).toBeUndefined();
    for (const given of [true, false]) {
      const { recipe } = await recipeOf("--method", "omniquant", given ? "--let" : "--no-let");
      expect(recipe.let).toBe(given);
    }
  });

  it.each([
    ["--schedule", "exponential", /Allowed choices are cosine, linear, constant/],
    ["--clip-norm", "-1", /Expected a number from 0 to 1000000/],
    ["--clip-norm", "much", /Expected a number from 0 to 1000000/],
    ["--clip-norm", "Infinity", /Expected a number from 0 to 1000000/],
  ])("refuse %s %s", async (option, value, message) => {
    const refused = recipeOf("--method", "omniquant", `${option}=${value}`);
    await expect(refused).rejects.toThrow(CommanderError);
    await expect(refused).rejects.toThrow(message);
  });

  it("are idle words of other methods", async () => {
    const { warnings } = await recipeOf("--method", "gptq", "--schedule", "linear", "--clip-norm", "1");
    expect(warnings).toEqual(["--schedule, --clip-norm: no meaning for the method gptq"]);
  });
});
