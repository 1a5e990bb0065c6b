import { Option } from "commander";
import { openCheckpointModel } from "../../../checkpoint/open.js";
import { writePlainCheckpoint } from "../../../checkpoint/plain.js";
import { parameterCount } from "../../../model/tensors.js";
import { formatBytes, formatSeconds } from "../../../report/format.js";
import { openFolder } from "../../folder.js";
import { createOutput } from "../../output.js";
import type { AddCommand, Handler } from "../command.js";
import { addCommonOptions, byteSize, type CommonOptions } from "../options.js";
import { createProgress } from "../progress.js";

interface DequantizeOptions extends CommonOptions {
  output: string;
  dtype?: "f16" | "bf16";
  maxShardSize?: number;
  overwrite: boolean;
}

const EXAMPLES = `
Examples:
  A plain Hugging Face checkpoint of the quantized weights, for any other program:
    $ bitwright dequantize quantized/ -o plain/

Every weight is what the quantized checkpoint means, rounded once to the type of the output. The folder appears when
it is complete; a run that is stopped leaves nothing.`;

export const addDequantize: AddCommand = (program, attach) => {
  const command = program
    .command("dequantize")
    .summary("write a plain checkpoint of a quantized one")
    .description("Writes a quantized checkpoint as a plain f16 or bf16 Hugging Face checkpoint.")
    .argument("<model>", "folder of a quantized checkpoint")
    .requiredOption("-o, --output <folder>", "folder to write")
    .addOption(
      new Option("--dtype <type>", "type of the weights (default: what config.json says)").choices(["f16", "bf16"]),
    )
    .option("--max-shard-size <size>", "largest weight file, such as 5GB", byteSize(1e6))
    .option("--overwrite", "replace the output folder if it exists", false);
  addCommonOptions(command).addHelpText("after", EXAMPLES);
  attach(command, dequantize);
};

const dequantize: Handler<DequantizeOptions> = async ([path], options, { terminal, signal }) => {
  const startedAt = performance.now();
  const source = await openCheckpointModel(await openFolder(path));
  try {
    if (source.format === "plain") terminal.warn(`${path} is not quantized: its weights are written as they are`);
    const { overwrite } = options;
    const expectedBytes = 2 * parameterCount(source.model);
    const output = await createOutput(options.output, { overwrite, expectedBytes });
    const total = source.layers.length + source.tensors.names.length;
    let done = 0;
    const progress = createProgress(terminal, "dequantize");
    const bytes = await writePlainCheckpoint({
      source,
      output,
      dtype: options.dtype,
      maxShardBytes: options.maxShardSize,
      onTensor: (name) => progress.update(Math.min(1, done++ / total), name),
      signal,
    }).finally(() => progress.stop());
    const seconds = (performance.now() - startedAt) / 1000;
    terminal.document({ model: path, output: options.output, format: source.format, bytes, seconds });
    terminal.print(`${options.output}: ${formatBytes(bytes)} of weights, written in ${formatSeconds(seconds)}`);
  } finally {
    await source.close();
  }
};
