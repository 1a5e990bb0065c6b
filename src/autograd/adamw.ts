import type { Engine } from "../engine/engine.js";
import { formatError } from "../errors.js";
import type { F32 } from "../tensor/index.js";

/** A tensor that is trained, in place. */
export interface Parameter {
  /** Names its moments in a saved state. */
  name: string;
  tensor: F32;
  /** Learning rate before the schedule's factor. */
  rate: number;
  /** Decoupled weight decay; default 0. */
  decay?: number;
}

export interface AdamwSettings {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Gradients are scaled down to this norm over all parameters together; default no bound. */
  clipNorm?: number;
  /**
   * The same in units of the norms' running mean, which begins with the first: for spikes whatever the size of the loss (the
   * idea of AutoClip, Seetharaman et al., arXiv 2007.14469). More than 1, or the mean can only fall; default no bound.
   */
  clipSpikes?: number;
}

/** Share of a step in the running mean of norms. */
const MEAN_SHARE = 1 / 32;

export const ADAMW: AdamwSettings = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/** Values and moments on the host, by name: what a killed run needs to go on to the same bytes. */
export interface OptimizerState {
  steps: number;
  skipped: number;
  /** Running mean of the norms let through; 0 before the first step. */
  meanNorm: number;
  values: Record<string, { value: Float32Array; first: Float32Array; second: Float32Array }>;
}

/** AdamW (Loshchilov and Hutter, arXiv 1711.05101) over named parameters. `dispose` frees the moments. */
export class AdamW {
  private readonly moments: { first: F32; second: F32 }[];
  /** Steps taken. */
  steps = 0;
  /** Steps left out because a gradient was not finite. */
  skipped = 0;
  private meanNorm = 0;

  constructor(
    private readonly engine: Engine,
    readonly parameters: readonly Parameter[],
    private readonly settings: AdamwSettings = ADAMW,
  ) {
    // kept when all are there
    this.moments = engine.scope(() =>
      parameters.map(({ tensor }) => ({ first: engine.create(tensor.shape), second: engine.create(tensor.shape) })),
    );
    for (const { first, second } of this.moments) for (const moment of [first, second]) engine.keep(moment);
  }

  /**
   * One step with the gradients in the order of the parameters; `factor` is the schedule's. Gradients that are not finite
   * change nothing and are counted. Returns the norm of all gradients together.
   */
  async step(gradients: readonly F32[], factor: number): Promise<number> {
    const { engine, settings } = this;
    const squares = await Promise.all(gradients.map((gradient) => engine.dot(gradient, gradient))); // one wait for all
    const norm = Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
    if (!Number.isFinite(norm)) {
      this.skipped++;
      return norm;
    }
    const { beta1, beta2, epsilon, clipNorm = Number.POSITIVE_INFINITY } = settings;
    const { clipSpikes = Number.POSITIVE_INFINITY } = settings;
    const bounded = Math.min(norm, clipNorm);
    const usual = this.meanNorm || bounded; // the first step has none before it
    const through = usual > 0 ? Math.min(bounded, clipSpikes * usual) : bounded;
    engine.scope(() => {
      // all of them before anything changes: where memory is short, the step is taken again
      const passed = through < norm ? gradients.map((gradient) => engine.scale(gradient, through / norm)) : gradients;
      this.steps++;
      this.meanNorm = usual + MEAN_SHARE * (through - usual);
      for (const [index, { tensor, rate, decay = 0 }] of this.parameters.entries()) {
        const { first, second } = this.moments[index];
        const options = { rate: rate * factor, beta1, beta2, epsilon, decay, step: this.steps };
        engine.adamwStep(tensor, passed[index], first, second, options);
      }
    });
    return norm;
  }

  async save(): Promise<OptimizerState> {
    const values: OptimizerState["values"] = {};
    for (const [index, { name, tensor }] of this.parameters.entries()) {
      const { first, second } = this.moments[index];
      values[name] = {
        value: await this.engine.read(tensor),
        first: await this.engine.read(first),
        second: await this.engine.read(second),
      };
    }
    return { steps: this.steps, skipped: this.skipped, meanNorm: this.meanNorm, values };
  }

  /** Throws "format" for the state of other parameters. */
  restore(state: OptimizerState): void {
    for (const [index, { name, tensor }] of this.parameters.entries()) {
      const saved = state.values[name];
      const { first, second } = this.moments[index];
      if (saved?.value.length !== tensor.size) throw formatError(`the saved training state does not fit ${name}`);
      this.engine.write(tensor, saved.value);
      this.engine.write(first, saved.first);
      this.engine.write(second, saved.second);
    }
    this.steps = state.steps;
    this.skipped = state.skipped;
    this.meanNorm = state.meanNorm;
  }

  dispose(): void {
    for (const { first, second } of this.moments) {
      first.dispose();
      second.dispose();
    }
  }
}

/**
 * Factor of the learning rate at `step` (from 0), which reaches 1 after `warmUp` steps. Adam's first steps are as large as the rate
 * allows in every parameter, whatever the gradients: they can throw a block far off, and the gradients from there keep its
 * steps small for a thousand more.
 */
export const warmUpFactor = (step: number, warmUp: number): number => Math.min(1, (step + 1) / Math.max(1, warmUp));

export const SCHEDULES = ["cosine", "linear", "constant"] as const;
export type Schedule = (typeof SCHEDULES)[number];

/** Factor of the learning rate at `step` of `steps` (from 0): from 1 down towards 0, or 1 throughout. */
export function scheduleFactor(schedule: Schedule, step: number, steps: number): number {
  const done = Math.min(1, step / Math.max(1, steps));
  switch (schedule) {
    case "cosine":
      return (1 + Math.cos(Math.PI * done)) / 2;
    case "linear":
      return 1 - done;
    case "constant":
      return 1;
    default:
      return schedule satisfies never;
  }
}
