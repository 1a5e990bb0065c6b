// The library for Node: everything of the browser-safe API, and paths on disk, threads and engines by name.

export * from "../index.js";
export { createEngine, type EngineChoice, type EngineOptions } from "./engines.js";
export { openFolder } from "./folder.js";
export { diskJournal } from "./journal.js";
export { openModelAt, weightBudget } from "./models.js";
export { createOutput, type OutputOptions } from "./output.js";
export { estimate, type PreparedJob, prepareJob, type QuantizeModelOptions, runJob } from "./quantize.js";
export { createSpillFile } from "./spill.js";
export { BUNDLED_TEXTS, type NamedText, readText } from "./texts.js";
export { nodeWorkers } from "./threads.js";
