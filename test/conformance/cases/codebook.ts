import type { F32, I32 } from "../../../src/tensor/index.js";
import { SEGMENT_SUM } from "../../tolerances.js";
import { type Case, f32, type Input, i32, normal, whole } from "../case.js";

function nearestCase(label: string, vectors: Input<"f32">, codebook: Input<"f32">, previous?: Input<"i32">): Case {
  return {
    operation: "nearestCodeword",
    label: `${label}: [${vectors.shape}] among [${codebook.shape}]`,
    inputs: previous ? [vectors, codebook, previous] : [vectors, codebook],
    run: (engine, [x, c, p]) => engine.nearestCodeword(x as F32, c as F32, p as I32 | undefined),
  };
}

const SEARCHES = [
  // n, v, C
  [0, 4, 5],
  [0, 4, 0],
  [1, 1, 1],
  [3, 1, 2],
  [5, 2, 3],
  [7, 3, 5],
  [31, 4, 7],
  [33, 5, 8],
  [65, 6, 9],
  [127, 7, 31],
  [9, 8, 33],
  [65, 9, 65],
  [33, 12, 17],
  [31, 16, 127],
  [300, 4, 256],
  [257, 6, 257],
  [301, 2, 16],
  [40, 8, 1025],
];

/** Vectors scattered closely around the codewords, so that a good guess ends the search early. */
function clustered(n: number, v: number, codewords: number): [Input<"f32">, Input<"f32">, Input<"i32">] {
  const codebook = normal([codewords, v], "codebook", 3);
  const near = whole([n], codewords, "near");
  const vectors = normal([n, v], "vectors", 0.4);
  for (let i = 0; i < n; i++)
    for (let t = 0; t < v; t++) vectors.data[i * v + t] += codebook.data[near.data[i] * v + t];
  return [vectors, codebook, near];
}

/** Small whole numbers: nearly every search ends in a tie, also with equal codewords. */
const gridded = (shape: number[], seed: string): Input<"f32"> => f32(shape, whole(shape, 4, seed).data);

const nearestCodeword: Case[] = [
  ...SEARCHES.flatMap(([n, v, codewords]) => {
    const [vectors, codebook] = [normal([n, v], "vectors"), normal([codewords, v], "codebook")];
    const plain = nearestCase("without a guess", vectors, codebook);
    if (codewords === 0) return [plain];
    return [plain, nearestCase("any guess", vectors, codebook, whole([n], codewords, "guess"))];
  }),
  ...[
    [31, 2, 9],
    [65, 3, 64],
    [127, 4, 65],
    [33, 8, 257],
  ].flatMap(([n, v, codewords]) => [
    nearestCase("ties", gridded([n, v], "vectors"), gridded([codewords, v], "codebook")),
    nearestCase(
      "ties, any guess",
      gridded([n, v], "vectors"),
      gridded([codewords, v], "codebook"),
      whole([n], codewords, "guess"),
    ),
  ]),
  ...[
    [3001, 4, 64],
    [2050, 2, 16],
    [1500, 6, 33],
    [1031, 8, 40],
  ].flatMap(([n, v, codewords]) => {
    const [vectors, codebook, near] = clustered(n, v, codewords);
    const ties = gridded([codewords, v], "many ties");
    return [
      nearestCase("clustered", vectors, codebook),
      nearestCase("clustered, a good guess", vectors, codebook, near),
      nearestCase("clustered, any guess", vectors, codebook, whole([n], codewords, "guess")),
      nearestCase("clustered ties, a guess", gridded([n, v], "many"), ties, whole([n], codewords, "guess")),
    ];
  }),
  nearestCase(
    "guesses outside the codebook",
    normal([1000, 4], "vectors"),
    normal([32, 4], "codebook"),
    i32(
      [1000],
      Array.from({ length: 1000 }, (_, i) => [-1, 32, 2 ** 31 - 1, -(2 ** 31)][i % 4]),
    ),
  ),
  nearestCase("equal codewords", normal([33, 4], "vectors"), f32([65, 4], new Float32Array(260).fill(0.5))),
  nearestCase("far away", normal([33, 4], "vectors", 1e18), normal([65, 4], "codebook")),
];

const segmentSum: Case[] = [
  [0, 4, 5],
  [0, 4, 0],
  [1, 1, 1],
  [3, 2, 7],
  [33, 3, 5],
  [127, 4, 31],
  [65, 5, 2],
  [300, 8, 256],
  [31, 12, 3],
  [20011, 4, 64],
  [3001, 17, 20],
  [6007, 3, 5003],
].flatMap(([n, v, segments]) =>
  [false, true].map((ragged): Case => {
    const weights = normal([n], "weights");
    if (!ragged) for (let i = 0; i < n; i++) weights.data[i] = Math.abs(weights.data[i]);
    // the upper half of the segments stays empty in the ragged case
    const indices = whole([n], Math.max(1, ragged ? Math.ceil(segments / 2) : segments), "indices");
    return {
      operation: "segmentSum",
      label: `[${n}, ${v}] in ${segments}${ragged ? ", some empty, weights of both signs" : ""}`,
      inputs: [normal([n, v], "vectors"), weights, indices],
      run: (engine, [x, w, i]) => engine.segmentSum(x as F32, w as F32, i as I32, segments),
      tolerance: SEGMENT_SUM,
    };
  }),
);

export const codebookCases: Case[] = [...nearestCodeword, ...segmentSum];
