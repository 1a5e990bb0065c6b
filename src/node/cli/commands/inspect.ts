import { openCheckpointModel } from "../../../checkpoint/open.js";
import { checkWeights } from "../../../model/tensors.js";
import { formatBits, formatBytes, formatCount, formatParameters, formatSmall } from "../../../report/format.js";
import { describeActivations, type Inspection, inspectCheckpoint } from "../../../report/inspection.js";
import { tableOf } from "../../../report/table.js";
import { openFolder } from "../../folder.js";
import type { AddCommand, Handler } from "../command.js";
import { addCommonOptions, type CommonOptions } from "../options.js";
import type { Terminal } from "../terminal.js";

const EXAMPLES = `
Examples:
  What is in a checkpoint, layer by layer, without reading the weights:
    $ bitwright inspect quantized/
  The bits per weight of its linears, for a script:
    $ bitwright inspect quantized/ --json | node -p 'JSON.parse(require("fs").readFileSync(0)).bits.linears'

Bits per weight count everything that is stored for a linear: indices with their padding, codebooks, scales, zeros,
permutations, biases.`;

export const addInspect: AddCommand = (program, attach) => {
  const command = program
    .command("inspect")
    .summary("show what is in a checkpoint")
    .description("Shows the format, family and shapes of a checkpoint, and the bits per weight of every linear.")
    .argument("<model>", "folder of a checkpoint, plain or quantized");
  addCommonOptions(command).addHelpText("after", EXAMPLES);
  attach(command, inspect);
};

const inspect: Handler<CommonOptions> = async ([path], _options, { terminal }) => {
  const checkpoint = await openCheckpointModel(await openFolder(path));
  try {
    checkWeights(checkpoint.model, checkpoint.weights);
    const inspection = await inspectCheckpoint(checkpoint);
    terminal.document({ model: path, ...inspection });
    show(path, inspection, terminal);
  } finally {
    await checkpoint.close();
  }
};

function show(
  path: string,
  { format, activations, family, shapes, parameters, linears, bits, fileBytes }: Inspection,
  terminal: Terminal,
) {
  const heads =
    shapes.heads === shapes.keyValueHeads
      ? `${shapes.heads} heads`
      : `${shapes.heads} heads (${shapes.keyValueHeads} of keys)`;
  terminal.print(`${path}: ${family}, ${format}, ${formatParameters(parameters)} parameters`);
  terminal.print(
    `${shapes.layers} layers of width ${shapes.hidden}, ${heads} of ${shapes.headSize}, MLP ${shapes.mlp}, ` +
      `vocabulary ${formatCount(shapes.vocabulary)}${shapes.tiedEmbeddings ? " (head tied)" : ""}, context ${formatCount(shapes.contextLength)}`,
  );
  if (activations) terminal.print(`activations, quantized as it runs: ${describeActivations(activations)}`);
  const hasError = linears.some(({ proxyError }) => proxyError !== undefined);
  terminal.table(
    tableOf(linears, [
      { title: "linear", align: "left", value: ({ name }) => name.replace(/^model\.layers\./, "") },
      { title: "rows x columns", value: ({ rows, columns }) => `${rows} x ${columns}` },
      { title: "stored", align: "left", value: ({ stored, method }) => (method ? `${stored} (${method})` : stored) },
      { title: "bits/weight", value: ({ bitsPerWeight }) => formatBits(bitsPerWeight) },
      ...(hasError
        ? [{ title: "proxy error", value: (linear: Inspection["linears"][number]) => formatSmall(linear.proxyError) }]
        : []),
    ]),
  );
  terminal.print(`bits per weight    ${formatBits(bits.linears)}   the linears above`);
  terminal.print(`                   ${formatBits(bits.withoutEmbeddings)}   everything but the embedding and head`);
  terminal.print(`                   ${formatBits(bits.withEmbeddings)}   everything`);
  terminal.print(`weight files       ${formatBytes(fileBytes)} (${formatBits(bits.files)} bits a parameter)`);
}
