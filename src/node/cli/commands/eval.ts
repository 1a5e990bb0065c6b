import { evaluate } from "../../../eval/index.js";
import {
  formatBits,
  formatCount,
  formatPerplexity,
  formatSeconds,
  formatShare,
  formatSmall,
} from "../../../report/format.js";
import { inspectCheckpoint } from "../../../report/inspection.js";
import type { RunnableModel } from "../../../runtime/model.js";
import { consecutiveWindows } from "../../../text/windows.js";
import { openModelAt } from "../../models.js";
import { BUNDLED_TEXTS, readText } from "../../texts.js";
import { type AddCommand, type CommandContext, type Handler, withEngine } from "../command.js";
import { addCommonOptions, addEngineOptions, type CommonOptions, type EngineOptions, wholeNumber } from "../options.js";
import { createProgress } from "../progress.js";

interface EvalOptions extends CommonOptions, EngineOptions {
  text: string;
  window?: number;
  against?: string;
  limit?: number;
}

/** Where --window is not given: this, or the model's context where that is shorter. */
const DEFAULT_WINDOW = 2048;

const EXAMPLES = `
Examples:
  The perplexity of the bundled model on the bundled slice of WikiText-2:
    $ bitwright eval models/wiki-7m
  What quantization cost: perplexity, KL divergence per token and top-1 agreement with the original:
    $ bitwright eval quantized/ --against original/ --text wiki.test.raw --window 1024
  A first idea in seconds:
    $ bitwright eval original/ --text wiki.test.raw --limit 4

The convention: the text is cut into windows that do not overlap, no beginning-of-sequence token is added, a last
partial window is dropped, and the mean is over every predicted token (window - 1 of each). Perplexities of other
conventions or tokenizers cannot be compared.`;

export const addEval: AddCommand = (program, attach) => {
  const command = program
    .command("eval")
    .summary("measure perplexity, and what quantization cost")
    .description("Measures the perplexity of a model on a text and, with --against, what it lost against another one.")
    .argument("<model>", "folder of a checkpoint, plain or quantized")
    .option("--text <file>", `plain text, .jsonl with a "text" field, or one of ${names()}`, "wikitext2")
    .option(
      "--window <tokens>",
      `tokens in a window (default: ${DEFAULT_WINDOW}, or the model's context if shorter)`,
      wholeNumber(2),
    )
    .option("--against <full>", "folder of the full-precision model to compare with")
    .option("--limit <windows>", "evaluate only the first windows of the text", wholeNumber(1));
  addCommonOptions(addEngineOptions(command)).addHelpText("after", EXAMPLES);
  attach(command, evalModel);
};

const names = (): string => Object.keys(BUNDLED_TEXTS).join(", ");

const evalModel: Handler<EvalOptions> = async ([path], options, context) => {
  const text = await readText(options.text);
  await withEngine(options, context, async (engine) => {
    const models = options.against === undefined ? 1 : 2;
    const model = await openModelAt(path, engine, models);
    try {
      const against = options.against === undefined ? undefined : await openModelAt(options.against, engine, models);
      try {
        await report(model, against, text, options, context);
      } finally {
        await against?.close();
      }
    } finally {
      await model.close();
    }
  });
};

async function report(
  model: RunnableModel,
  against: RunnableModel | undefined,
  { name, text }: { name: string; text: string },
  options: EvalOptions,
  { terminal, signal }: CommandContext,
): Promise<void> {
  const { contextLength } = model.checkpoint.model;
  const window = options.window ?? Math.min(DEFAULT_WINDOW, contextLength);
  if (window > contextLength)
    terminal.warn(`windows of ${window} tokens are longer than the model's context of ${contextLength}`);
  const tokens = (await model.tokenizer()).encode(text);
  const windows = consecutiveWindows(tokens, window, options.limit, name);
  terminal.note(`${name}: ${formatCount(tokens.length)} tokens, ${formatCount(windows.length)} windows of ${window}`);
  const progress = createProgress(terminal, "eval");
  const result = await evaluate(model.decoder, windows, {
    against: against?.decoder,
    signal,
    onEvent: ({ done, windows: total, perplexity, remainingSeconds }) =>
      progress.update(
        done / total,
        perplexity === undefined ? "the full-precision model" : `perplexity ${formatPerplexity(perplexity)}`,
        remainingSeconds,
      ),
  }).finally(() => progress.stop());
  const { bits, format } = await inspectCheckpoint(model.checkpoint);
  const { engine } = model.decoder;
  terminal.document({
    model: model.name,
    format,
    text: name,
    window,
    ...result,
    bitsPerWeight: bits.linears,
    bitsPerParameter: bits.withEmbeddings,
    against: against?.name,
    engine: engine.name,
    threads: engine.threads,
  });
  terminal.print(
    `perplexity      ${result.perplexity.toFixed(3)}   (${name}, ${formatCount(result.tokens)} predicted tokens)`,
  );
  if (against) {
    terminal.print(`  of the other  ${result.againstPerplexity?.toFixed(3)}   (${against.name})`);
    terminal.print(`KL divergence   ${formatSmall(result.klDivergence)} nats a token`);
    terminal.print(`top-1 the same  ${formatShare(result.topAgreement)}`);
  }
  terminal.print(
    `bits per weight ${formatBits(bits.linears)}   (the linears of the blocks; ${formatBits(bits.withEmbeddings)} with everything)`,
  );
  terminal.print(`time            ${formatSeconds(result.seconds)}`);
}
