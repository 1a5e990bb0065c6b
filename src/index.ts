// The public API. Safe in a browser: nothing here imports node:. Paths on disk, threads and engines by name are in "bitwright/node".

export { type ExportJob, type ExportPlan, exportCheckpoint, planExport } from "./checkpoint/export.js";
export { type CheckpointModel, openCheckpointModel, type QuantizedLayer } from "./checkpoint/open.js";
export { type PlainCheckpoint, writePlainCheckpoint } from "./checkpoint/plain.js";
export type { Engine, EngineName } from "./engine/engine.js";
export { createReferenceEngine } from "./engine/reference/index.js";
export { createWasmEngine } from "./engine/wasm/engine.js";
export { BitwrightError, type ErrorKind } from "./errors.js";
export { type Evaluation, type EvaluationEvent, type EvaluationOptions, evaluate, evaluateAll } from "./eval/index.js";
export type { ByteSink, ByteSource, Folder, OutputFolder } from "./files/folder.js";
export { blobFolder, type MemoryOutput, memoryFolder, memoryOutput } from "./files/memory.js";
export type { SpillFile } from "./pipeline/activations.js";
export { estimateJob, type JobEstimate } from "./pipeline/estimate.js";
export type { LinearDone, OnEvent, QuantizeEvent } from "./pipeline/events.js";
export { fitRecipe, planOf, type QuantizeOptions, type QuantizeResult, quantize } from "./pipeline/job.js";
export { type Journal, memoryJournal } from "./pipeline/journal.js";
export { type PlannedLinear, type PlanTotals, planTotals } from "./pipeline/plan.js";
export {
  DEFAULT_RECIPE,
  type Recipe,
  type RecipeInput,
  type RecipeOverride,
  recipeJsonSchema,
  recipeSchema,
  resolveRecipe,
} from "./pipeline/recipe.js";
export { bitsPerWeight, CHECKPOINT_FORMATS, type CheckpointFormat, recordBits } from "./quant/bits.js";
export { dequantize } from "./quant/dequantize.js";
export type { AffineRecord, CodebookRecord, QuantizedRecord } from "./quant/record.js";
export * from "./runtime/index.js";
export { Tensor } from "./tensor/index.js";
export * from "./text/index.js";
