import { Option } from "commander";
import { exportCheckpoint, planExport } from "../../../checkpoint/export.js";
import { openCheckpointModel } from "../../../checkpoint/open.js";
import { tableParameters } from "../../../model/tensors.js";
import { CHECKPOINT_FORMATS, type CheckpointFormat } from "../../../quant/bits.js";
import { formatBits, formatBytes, formatSeconds } from "../../../report/format.js";
import { weightFileBytes } from "../../../report/inspection.js";
import { openFolder } from "../../folder.js";
import { createOutput } from "../../output.js";
import type { AddCommand, Handler } from "../command.js";
import { addCommonOptions, byteSize, type CommonOptions } from "../options.js";
import { createProgress } from "../progress.js";

interface ExportOptions extends CommonOptions {
  output: string;
  format: CheckpointFormat;
  maxShardSize?: number;
  overwrite: boolean;
  dryRun: boolean;
}

const EXAMPLES = `
Examples:
  For transformers with gptqmodel, or for vLLM:
    $ bitwright export quantized/ -o gptq/ --format gptq_v2
  Whether it fits, and in how many bits:
    $ bitwright export quantized/ -o out/ --format compressed-tensors --dry-run

The codes, scales and zeros stay what they are, and so do the weights. What a format cannot hold is refused with the
reason (docs/FORMAT.md). Asymmetric compressed-tensors load in transformers with CompressedTensorsConfig(dequantize=True).`;

export const addExport: AddCommand = (program, attach) => {
  const command = program
    .command("export")
    .summary("write a quantized checkpoint in another format")
    .description("Writes a quantized checkpoint in the format of another program, without quantizing it again.")
    .argument("<model>", "folder of a quantized checkpoint")
    .requiredOption("-o, --output <folder>", "folder to write")
    .addOption(
      new Option("--format <name>", "format of the new checkpoint").choices(CHECKPOINT_FORMATS).makeOptionMandatory(),
    )
    .option("--max-shard-size <size>", "largest weight file, such as 5GB", byteSize(1e6))
    .option("--overwrite", "replace the output folder if it exists", false)
    .option("--dry-run", "say whether it fits, and the bits; touch nothing", false);
  addCommonOptions(command).addHelpText("after", EXAMPLES);
  attach(command, exportModel);
};

const exportModel: Handler<ExportOptions> = async ([path], options, { terminal, signal }) => {
  const startedAt = performance.now();
  const { format, output, overwrite, dryRun } = options;
  const source = await openCheckpointModel(await openFolder(path));
  try {
    const plan = planExport(source, format); // refused before a folder is made
    const told = { model: path, from: source.format, format, ...plan };
    const bits = `${plan.linears} linears at ${formatBits(plan.bitsPerWeight)} bits per weight`;
    if (dryRun) {
      terminal.document({ dryRun, ...told });
      terminal.print(`${format}: ${bits}`);
      terminal.print("nothing was written");
      return;
    }
    const expectedBytes = Math.max(await weightFileBytes(source), 2 * tableParameters(source.model));
    const progress = createProgress(terminal, "export");
    const { tensorBytes } = await exportCheckpoint({
      source,
      output: await createOutput(output, { overwrite, expectedBytes }),
      format,
      maxShardBytes: options.maxShardSize,
      onTensor: (written, total) => progress.update(written / total, ""),
      signal,
    }).finally(() => progress.stop());
    const seconds = (performance.now() - startedAt) / 1000;
    terminal.document({ ...told, output, tensorBytes, seconds });
    terminal.print(`${output}: ${format}, ${bits}, ${formatBytes(tensorBytes)}, written in ${formatSeconds(seconds)}`);
  } finally {
    await source.close();
  }
};
