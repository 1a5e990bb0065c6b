import { usageError } from "../../../errors.js";
import { formatSeconds } from "../../../report/format.js";
import { type ChatMessage, encodeChat, encodePrompt, generate, openChatTemplate } from "../../../runtime/index.js";
import type { RunnableModel } from "../../../runtime/model.js";
import { openFolder } from "../../folder.js";
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
  prompt?: string;
  chat?: string;
  system?: string;
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
  An answer of a chat model, asked as its chat template says:
    $ bitwright generate Qwen2.5-0.5B-Instruct --chat "Why is the sky blue?" --system "Answer in one sentence."

The text goes to standard output, and nothing else does. It ends where the model says so, after --max-tokens, or where
the model's context is full. With --chat it is the answer alone.`;

export const addGenerate: AddCommand = (program, attach) => {
  const command = program
    .command("generate")
    .summary("continue a text, or answer a message")
    .description("Continues a prompt, or answers a message, token by token. One of --prompt and --chat is needed.")
    .argument("<model>", "folder of a checkpoint, plain or quantized")
    .option("--prompt <text>", "the text to continue")
    .option("--chat <message>", "a message to answer, put into the checkpoint's chat template")
    .option("--system <text>", "with --chat: the system message before it")
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

interface Input {
  /** What the output begins with. */
  shown: string;
  prompt: string;
  ids: Int32Array;
  endTokens: number[];
}

function checkInput({ prompt, chat, system }: GenerateOptions): void {
  if ((prompt === undefined) === (chat === undefined)) {
    throw usageError(
      `expected one of --prompt and --chat, got ${prompt === undefined ? "neither" : "both"}`,
      "--prompt TEXT continues a text, --chat MESSAGE answers a message",
    );
  }
  if (system !== undefined && chat === undefined)
    throw usageError(
      "--system without --chat",
      "it is the system message of a conversation: give the message with --chat",
    );
}

async function readInput(model: RunnableModel, path: string, options: GenerateOptions): Promise<Input> {
  const tokenizer = await model.tokenizer();
  const { endTokens } = model.decoder.config;
  const { prompt = "", chat, system } = options;
  if (chat === undefined) {
    return { shown: prompt, prompt, ids: encodePrompt(tokenizer, prompt), endTokens: [...endTokens] };
  }
  const template = await openChatTemplate(await openFolder(path));
  const messages: ChatMessage[] = [{ role: "user", content: chat }];
  if (system !== undefined) messages.unshift({ role: "system", content: system });
  const text = template.render(messages);
  const ends = [...endTokens, ...template.endTokens(tokenizer)];
  return { shown: "", prompt: text, ids: encodeChat(tokenizer, text), endTokens: ends };
}

const generateText: Handler<GenerateOptions> = async ([path], options, context) => {
  checkInput(options);
  await withEngine(options, context, async (engine) => {
    const { terminal, signal } = context;
    const model = await openModelAt(path, engine);
    try {
      const tokenizer = await model.tokenizer();
      const { shown, prompt, ids: promptIds, endTokens } = await readInput(model, path, options);
      const { maxTokens, temperature, topP, seed } = options;
      terminal.stream(shown);
      let text = "";
      const ids: number[] = [];
      for await (const event of generate(model.decoder, tokenizer, promptIds, {
        endTokens,
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
          prompt,
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
};
