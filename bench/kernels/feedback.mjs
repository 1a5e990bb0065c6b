// Error feedback over 1408 columns on a slab of 64 rows, one thread: node bench/kernels/feedback.mjs
import { compile, normal, report, time } from "./lab.mjs";

const [columns, rows] = [1408, 64];
const { kernels, memory } = await compile("feedback");
const slab = 65536;
const feedback = slab + 4 * rows * (columns + 16);
const scratch = feedback + 4 * columns * columns;
const weights = normal(rows * columns).map((value) => 3 * value);
const factors = normal(columns * columns, 2).map((value) => (0.3 * value) / Math.sqrt(columns));
new Float32Array(memory.buffer, feedback, factors.length).set(factors);
const running = new Float32Array(memory.buffer, slab, weights.length);

const variants = {
  scalar: "scalar loops: what the reference does",
  atOnce: "each column pays to all behind it at once: the slab passes 1408 times",
  blocks: "blocks of 64 columns, then 4 x 8 tiles in registers, in the same order",
};
let expected;
for (const [name, label] of Object.entries(variants)) {
  const milliseconds = time(() => {
    running.set(weights);
    kernels[name](slab, rows, columns, feedback, scratch);
  });
  expected ??= running.slice();
  report(
    label,
    milliseconds,
    running.every((value, i) => value === expected[i]),
  );
}
