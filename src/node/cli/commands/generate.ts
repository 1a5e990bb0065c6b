import { formatSeconds } from "../../../report/format.js";
import { encodePrompt, generate } from "../../../runtime/index.js";
import { openModelAt } from "../../models.js";
import { type AddCommand, type Handler, withEngine } from "../command.js";
import {
  addCommonOptions,
  addEngineOptions,
  type CommonOptions,
  type EngineOptions,
  numberBetween,
  wholeNumber,
} from "../options.js";

interface GenerateOptions extends CommonOptions, EngineOptions {
  prompt: string;
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
}

const EXAMPLES = `
Examples:
  The likeliest continuation (temperature 0):
    $ bitwright generate models/wiki-7m --prompt "The river flows through"
  A livelier one, the same each time for the same seed:
    $ bitwright generate models/wiki-7m --prompt "The river flows through" --temperature 0.8 --top-p 0.9 --seed 7

The text goes to standard output, and nothing else does. It ends where the model says so, after --max-tokens, or where
the model's context is full.`;

export const addGenerate: AddCommand = (program, attach) => {
  const command = program
    .command("generate")
    .summary("continue a text")
    .description("Continues a prompt, token by token.")
    .argument("<model>", "folder of a checkpoint, plain or quantized")
    .requiredOption("--prompt <text>", "the text to continue")
    .option("--max-tokens <count>", "most tokens to add", wholeNumber(1), 128)
    .option(
      "--temperature <number>",
      "0 is the likeliest token each time; 1 draws as the model says",
      numberBetween(0, 100),
      0,
    )
    .option(
      "--top-p <share>",
      "draw from the likeliest tokens that together have this probability",
      numberBetween(0, 1),
      1,
    )
    .option("--seed <number>", "seed of the drawing", wholeNumber(0, 0xffffffff), 0);
  addCommonOptions(addEngineOptions(command)).addHelpText("after", EXAMPLES);
  attach(command, generateText);
};

const generateText: Handler<GenerateOptions> = ([path], options, context) =>
  withEngine(options, context, async (engine) => {
    const { terminal, signal } = context;
    const model = await openModelAt(path, engine);
    try {
      const tokenizer = await model.tokenizer();
      const prompt = encodePrompt(tokenizer, options.prompt);
      const { maxTokens, temperature, topP, seed } = options;
      terminal.stream(options.prompt);
      let text = "";
      const ids: number[] = [];
      for await (const event of generate(model.decoder, tokenizer, prompt, {
        maxTokens,
        temperature,
        topP,
        seed,
        signal,
      })) {
        terminal.stream(event.text);
        text += event.text;
        if (event.type === "token") {
          ids.push(event.id);
          continue;
        }
        const { reason, promptTokens, tokens, promptSeconds, seconds } = event;
        const tokensPerSecond = seconds > 0 ? tokens / seconds : undefined;
        terminal.print();
        if (reason === "context")
          terminal.warn(
            `the text ended because the model's context of ${model.checkpoint.model.contextLength} tokens is full`,
          );
        terminal.note(
          `${promptTokens} tokens read in ${formatSeconds(promptSeconds)}, ${tokens} written in ${formatSeconds(seconds)}` +
            `${tokensPerSecond === undefined ? "" : ` (${tokensPerSecond.toFixed(1)} a second)`}; ended by: ${reason}`,
        );
        terminal.document({
          model: model.name,
          prompt: options.prompt,
          text,
          tokens: ids,
          promptTokens,
          endedBy: reason,
          promptSeconds,
          seconds,
          tokensPerSecond,
          engine: engine.name,
        });
      }
    } finally {
      await model.close();
    }
  });
