import { z } from "zod";
import { usageError } from "../../../errors.js";
import { formatCount } from "../../../report/format.js";
import { computeLogits, type Logits } from "../../../runtime/index.js";
import { openModelAt } from "../../models.js";
import { type AddCommand, type Handler, withEngine } from "../command.js";
import {
  addCommonOptions,
  addEngineOptions,
  type CommonOptions,
  type EngineOptions,
  readJsonOption,
} from "../options.js";

interface LogitsOptions extends CommonOptions, EngineOptions {
  tokens: string;
  cached: boolean;
}

const EXAMPLES = `
Examples:
  Logits of two rows of three tokens, for comparing with another engine:
    $ echo '[[1, 434, 7488], [1, 2473, 523]]' > tokens.json
    $ bitwright logits models/wiki-7m --tokens tokens.json --json > logits.json
  In Python: numpy.frombuffer(base64.b64decode(document["logits"]), "<f4").reshape(document["shape"])
  The same through the key-value cache, one token at a time:
    $ bitwright logits models/wiki-7m --tokens tokens.json --cached --json > cached.json`;

export const addLogits: AddCommand = (program, attach) => {
  const command = program
    .command("logits")
    .summary("token ids in, logits out")
    .description("Computes the logits of token ids, for comparing with other engines. Needs no tokenizer.")
    .argument("<model>", "folder of a checkpoint, plain or quantized")
    .requiredOption("--tokens <file>", "JSON: an array of arrays of token ids, all of one length")
    .option("--cached", "go token by token through the key-value cache", false);
  addCommonOptions(addEngineOptions(command)).addHelpText("after", EXAMPLES);
  attach(command, logits);
};

const tokensSchema = z
  .array(z.array(z.number().int().min(0)).max(1 << 20))
  .min(1)
  .max(1 << 16);

const logits: Handler<LogitsOptions> = async ([path], options, context) => {
  const parsed = tokensSchema.safeParse(await readJsonOption(options.tokens));
  if (!parsed.success) {
    const { path: where, message } = parsed.error.issues[0];
    throw usageError(
      `${options.tokens}: expected an array of arrays of token ids; ${where.length > 0 ? `at [${where.join("][")}]: ` : ""}${message}`,
      "for example [[1, 434, 7488]]",
    );
  }
  await withEngine(options, context, async (engine) => {
    const model = await openModelAt(path, engine);
    try {
      const result = await computeLogits(model.decoder, parsed.data, {
        cached: options.cached,
        signal: context.signal,
      });
      const { terminal } = context;
      if (terminal.json) await writeDocument(result, terminal.stdout);
      terminal.print(
        `logits [${result.shape.join(", ")}]; --json prints them all. The likeliest next tokens of each row:`,
      );
      for (const line of likeliest(result)) terminal.print(line);
    } finally {
      await model.close();
    }
  });
};

/** {"shape", "logits"} in pieces: the text may be larger than a string can be. */
async function writeDocument({ shape, values }: Logits, stdout: NodeJS.WritableStream): Promise<void> {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const write = (text: string): Promise<void> =>
    new Promise((resolve, reject) => stdout.write(text, (error) => (error ? reject(error) : resolve())));
  await write(`{"shape":[${shape.join(",")}],"logits":"`);
  const piece = 3 << 20; // a multiple of 3, so that the pieces of base64 join
  for (let begin = 0; begin < bytes.length; begin += piece) {
    await write(Buffer.from(bytes.subarray(begin, begin + piece)).toString("base64"));
  }
  await write('"}\n');
}

const SHOWN_ROWS = 8;

function likeliest({ shape, values }: Logits): string[] {
  const [batch, length, vocabulary] = shape;
  if (length === 0) return [];
  const lines: string[] = [];
  for (let row = 0; row < Math.min(batch, SHOWN_ROWS); row++) {
    const end = (row + 1) * length * vocabulary;
    const last = values.subarray(end - vocabulary, end);
    const order = Uint32Array.from(last, (_, token) => token).sort((a, b) => last[b] - last[a] || a - b);
    const best = Array.from(order.subarray(0, 5), (token) => `${token} (${last[token].toFixed(3)})`);
    lines.push(`  row ${row}: ${best.join("  ")}`);
  }
  if (batch > SHOWN_ROWS) lines.push(`  and ${formatCount(batch - SHOWN_ROWS)} rows more`);
  return lines;
}
