// What every engine checks of its arguments, so that all refuse alike: one function an operation (or a few that are alike),
// which throws a "usage" error that names operation, expectation and what came, and returns the extents. Shape letters as in
// engine.ts. The functions look at shapes and types; `checkIndexValues` looks at elements and needs them on the host.

export * from "./check/arithmetic.js";
export { checkIndexValues } from "./check/basis.js";
export * from "./check/decoder.js";
export * from "./check/gradients.js";
export * from "./check/grid.js";
export * from "./check/memory.js";
export * from "./check/quantization.js";
