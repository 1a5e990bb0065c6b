import type { LinearMetrics } from "../quant/method.js";

// Progress as data: the terminal, --json, the report and whatever comes later read the same events.

/** One linear that is done. */
export interface LinearDone extends LinearMetrics {
  type: "linear";
  block: number;
  /** Full name of the linear, "model.layers.0.mlp.down_proj". */
  name: string;
  method: string;
  rows: number;
  columns: number;
  /** Everything stored for it, over rows x columns. */
  bitsPerWeight: number;
  seconds: number;
  /** True when it came from the journal of an earlier run. */
  resumed: boolean;
}

export type QuantizeEvent =
  | {
      type: "start";
      model: string;
      blocks: number;
      linears: number;
      windows: number;
      tokens: number;
      engine: string;
      resumedLinears: number;
    }
  | { type: "block"; block: number; blocks: number }
  /** Calibration windows that passed through a stage. `slots` names the linears whose inputs are being measured. */
  | { type: "pass"; block: number; slots: string[]; window: number; windows: number }
  | LinearDone
  /** A step of a block's training. */
  | { type: "step"; block: number; stage: string; step: number; steps: number }
  /** An epoch of a block's training: mean squared error over it, and before the first step. */
  | { type: "epoch"; block: number; stage: string; epoch: number; epochs: number; loss: number; startLoss: number }
  /** A block's training is over. `improved` false: it did not beat the start, which was kept. */
  | {
      type: "trained";
      block: number;
      stage: string;
      startLoss: number;
      loss: number;
      improved: boolean;
      skippedSteps: number;
      steps: number;
    }
  | { type: "kept"; block: number; name: string }
  /** Whole job: share done (0-1) and the estimate of the time left. */
  | { type: "progress"; fraction: number; elapsedSeconds: number; remainingSeconds: number }
  | { type: "spill"; bytes: number }
  | { type: "writing"; bytes: number }
  | { type: "warning"; message: string }
  | { type: "done"; linears: number; bitsPerWeight: number; seconds: number; meanProxyError: number };

export type OnEvent = (event: QuantizeEvent) => void;
