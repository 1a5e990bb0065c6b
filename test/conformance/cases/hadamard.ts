import type { F32 } from "../../../src/tensor/index.js";
import { HADAMARD } from "../../tolerances.js";
import { type Case, f32, normal } from "../case.js";
import { expectClose } from "../compare.js";

export const hadamardCases: Case[] = [
  ...[
    [1],
    [2],
    [4],
    [8],
    [64],
    [512],
    [1024],
    [4096],
    [3, 1],
    [5, 2],
    [7, 4],
    [3, 16],
    [3, 5, 32],
    [33, 128],
    [5, 256],
  ],
  ...[[9, 512], [7, 1024], [2, 3, 2048], [3, 4096], [3, 8192], [2, 16384], [3, 32768], [524288], [0, 8], [3, 0]],
].map((shape) => ({
  operation: "hadamard",
  label: `[${shape}]`,
  inputs: [normal(shape)],
  run: (engine, [x]) => engine.hadamard(x as F32),
  tolerance: HADAMARD,
}));
/** The place of every single element shows: a row of the identity becomes a row of H. */
hadamardCases.push({
  operation: "hadamard",
  label: "the identity",
  inputs: [
    f32(
      [256, 256],
      Array.from({ length: 65536 }, (_, at) => Number(at % 257 === 0)),
    ),
  ],
  run: (engine, [x]) => engine.hadamard(x as F32),
});
for (const shape of [
  [7, 64],
  [3, 4096],
  [2, 8192],
])
  hadamardCases.push({
    operation: "hadamard",
    label: `[${shape}] twice is the identity`,
    inputs: [normal(shape)],
    run: (engine, [x]) => engine.hadamard(engine.hadamard(x as F32)),
    verify: ([output], [input]) => expectClose(output, { ...output, data: input.data }, HADAMARD, "twice"),
  });
