// The public API. Safe in a browser: nothing here imports node:. Paths on disk, threads and engines by name are in "bitwright/node".

export { openAddress } from "./checkpoint/address.js";
export { type ExportJob, type ExportPlan, exportCheckpoint, planExport } from "./checkpoint/export.js";
export { type CheckpointModel, openCheckpointModel, type QuantizedLayer } from "./checkpoint/open.js";
export { type PlainCheckpoint, writePlainCheckpoint } from "./checkpoint/plain.js";
export type { Engine, EngineName } from "./engine/engine.js";
export { createReferenceEngine } from "./engine/reference/index.js";
export { createWasmEngine, type WasmEngineOptions } from "./engine/wasm/engine.js";
export { webWorkers } from "./engine/wasm/worker.js";
export { createWebgpuEngine, type WebgpuEngineOptions } from "./engine/webgpu/engine.js";
export { BitwrightError, type ErrorKind } from "./errors.js";
export { type Evaluation, type EvaluationEvent, type EvaluationOptions, evaluate, evaluateAll } from "./eval/index.js";
export type { ByteSink, ByteSource, Folder, OutputFolder } from "./files/folder.js";
export type { HttpOptions } from "./files/http.js";
export {
  type BlobOutput,
  blobFolder,
  blobOutput,
  type MemoryOutput,
  memoryFolder,
  memoryOutput,
} from "./files/memory.js";
export type { SpillFile } from "./pipeline/activations.js";
export { estimateJob, type JobEstimate } from "./pipeline/estimate.js";
export type { LinearDone, OnEvent, QuantizeEvent } from "./pipeline/events.js";
export {
  fitRecipe,
  modelIdentity,
  planOf,
  type QuantizeOptions,
  type QuantizeResult,
  quantize,
} from "./pipeline/job.js";
export { type Journal, memoryJournal } from "./pipeline/journal.js";
export { needsCalibration } from "./pipeline/methods.js";
export { type PlannedLinear, type PlanTotals, planTotals } from "./pipeline/plan.js";
export {
  DEFAULT_RECIPE,
  METHODS,
  type MethodName,
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
