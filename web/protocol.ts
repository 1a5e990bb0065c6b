import type {
  CheckpointFormat,
  ErrorKind,
  Evaluation,
  EvaluationEvent,
  LinearDone,
  QuantizeEvent,
  RecipeInput,
} from "../src/index.js";

// What the page and its worker say to each other. Plain data: it passes through structured clone.

/** Where a checkpoint comes from. */
export type ModelSource =
  | { kind: "files"; name: string; files: ReadonlyMap<string, Blob> }
  | { kind: "address"; address: string };

/** "wasm-plain": without fused multiply-add, the same bytes on every machine. */
export const ENGINE_CHOICES = ["auto", "webgpu", "wasm", "wasm-plain"] as const;
export type EngineChoice = (typeof ENGINE_CHOICES)[number];

export interface TextSource {
  /** The same for the same text: it is tokenized once. */
  id: string;
  name: string;
  text: Blob;
}

export interface JobInput {
  recipe: RecipeInput;
  /** Default: the published VPTQ layout where it fits, else our own. */
  format?: CheckpointFormat;
  calibration: TextSource;
}

export interface RunInput extends JobInput {
  /** Take up what an earlier run of the same job finished. */
  resume: boolean;
  /** Measure before and after on this text. */
  evaluation?: { text: TextSource; windows: number };
}

export interface ModelInfo {
  name: string;
  family: string;
  blocks: number;
  contextLength: number;
  parameters: number;
  tensorBytes: number;
  /** "plain", or the format in which it is quantized already. */
  format: string;
}

export interface EngineInfo {
  name: string;
  description: string;
  /** In a line, why it is this one. */
  reason: string;
  /** What would make it faster. */
  hint?: string;
}

/** Linears of one kind in a plan: the same place in their blocks, the same shape and the same scheme. */
export interface PlanLine {
  name: string;
  count: number;
  rows: number;
  columns: number;
  scheme: string;
  bitsPerWeight: number;
}

export interface PlanInfo {
  lines: PlanLine[];
  linears: number;
  bitsPerWeight: number;
  /** All tensors before and, roughly, after. */
  beforeBytes: number;
  afterBytes: number;
  seconds: number;
  memoryBytes: number;
  /** Absent where nothing is calibrated. */
  calibration?: { name: string; tokens: number; samples: number; window: number };
  /** Linears of this very job that an earlier run finished. */
  finished: number;
}

export interface RunResult {
  /** Of the folder that was quantized. */
  name: string;
  files: ReadonlyMap<string, Blob>;
  format: CheckpointFormat;
  bitsPerWeight: number;
  /** Of all weights of the original. */
  beforeBits: number;
  beforeBytes: number;
  afterBytes: number;
  seconds: number;
  meanProxyError: number;
  linears: LinearDone[];
  evaluation?: Evaluation;
  /** Why there is no evaluation though one was asked for. */
  evaluationFailure?: Failure;
}

export interface Failure {
  kind: ErrorKind | "internal";
  message: string;
  remedy?: string;
}

export interface EngineInput {
  choice: EngineChoice;
  /** Bytes of a card's memory that may be taken; a browser does not tell how many there are. */
  deviceMemory?: number;
}

/** Requests by name: what is sent, and what comes back. */
export interface Requests {
  engine: { input: EngineInput; output: EngineInfo };
  open: { input: ModelSource; output: ModelInfo };
  plan: { input: JobInput; output: PlanInfo };
  run: { input: RunInput; output: RunResult };
  /** Drops what the job's earlier run finished. */
  forget: { input: JobInput; output: undefined };
}
export type RequestName = keyof Requests;

export type ToWorker =
  | { [K in RequestName]: { type: K; id: number; input: Requests[K]["input"] } }[RequestName]
  | { type: "stop" };

export type RunEvent = QuantizeEvent | EvaluationEvent | { type: "evaluating" };

export type FromWorker =
  | { type: "done"; id: number; output: Requests[RequestName]["output"] }
  | { type: "failed"; id: number; failure: Failure }
  | { type: "event"; event: RunEvent };
