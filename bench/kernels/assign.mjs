// Assignment of 45k vectors of 4 to 256 codewords on one thread: node bench/kernels/assign.mjs
// The pruned search of the engine (assembly/neighbor.ts) is measured by bench/speed/quantization.ts.
import { compile, normal, report, time } from "./lab.mjs";

const [n, codewords] = [45_056, 256];
const { kernels, memory } = await compile("assign");
const x = 65536;
const codebook = x + 16 * n;
const blocks = codebook + 16 * codewords;
const out = blocks + 16 * codewords;
const scratch = out + 4 * n;
new Float32Array(memory.buffer, x, 4 * n).set(normal(4 * n));
const c = normal(4 * codewords, 2);
new Float32Array(memory.buffer, codebook, c.length).set(c);
const laid = new Float32Array(memory.buffer, blocks, c.length);
for (let k = 0; k < codewords; k++) for (let t = 0; t < 4; t++) laid[16 * (k >> 2) + 4 * t + (k & 3)] = c[4 * k + t];
const chosen = new Int32Array(memory.buffer, out, n);

const variants = {
  scalar: "scalar loops: what the reference does",
  codewordLanes: "lanes are codewords: a vector at a time, a reduction at its end",
  vectorLanes: "lanes are vectors: no reduction, codewords are splat as they lie",
  runsOfEight: "8 vectors, an index a run of 8 codewords, the codeword found later",
};
let expected;
for (const [name, label] of Object.entries(variants)) {
  const milliseconds = time(() => kernels[name](x, n, codebook, blocks, codewords, out, scratch));
  expected ??= chosen.slice();
  report(
    label,
    milliseconds,
    chosen.every((index, i) => index === expected[i]),
  );
}
