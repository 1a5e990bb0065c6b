import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import { type F32, sameShape, type Tensor } from "../tensor/index.js";
import { differentiable } from "./operations.js";

/** Gradients of an operation's inputs in their order; undefined where none is wanted or there is none. */
export type Vjp<Saved extends readonly Tensor[]> = (grad: F32, saved: Saved) => (F32 | undefined)[];

interface Node {
  output: number;
  /** Variables of the inputs; undefined for constants. */
  inputs: (number | undefined)[];
  /** What the rule needs, as views of the tape's own: callers may dispose theirs. */
  saved: Tensor[];
  vjp: Vjp<readonly Tensor[]>;
}

/**
 * Reverse-mode differentiation over an engine's operations. `tape.engine` is an engine that notes every operation on a watched
 * tensor; any code that takes an engine can run on it. Operations without a rule refuse watched tensors.
 *
 *     const tape = new Tape(engine);
 *     tape.watch(w);
 *     const y = forward(tape.engine, w);
 *     const [dw] = tape.backward(y, gradient of the loss by y, [w]);
 *     tape.clear();
 */
export class Tape {
  /** Records; scopes and memory are the base engine's. */
  readonly engine: Engine;
  private readonly variables = new WeakMap<Tensor, number>();
  private nodes: Node[] = [];
  private count = 0;

  constructor(readonly base: Engine) {
    this.engine = differentiable(this);
  }

  /** Wants the gradient of a tensor. */
  watch<T extends Tensor>(tensor: T): T {
    if (!this.variables.has(tensor)) this.variables.set(tensor, this.count++);
    return tensor;
  }

  /** True when a gradient flows to the tensor. */
  isWatched(tensor: Tensor | undefined): boolean {
    return tensor !== undefined && this.variables.has(tensor);
  }

  /**
   * Notes that `output` came from `inputs`, if one of them is watched. `vjp` gets the output's gradient and `saved`; it may
   * leave the gradients of inputs that are not watched undefined.
   */
  record<T extends Tensor, const Saved extends readonly Tensor[]>(
    output: T,
    inputs: readonly (Tensor | undefined)[],
    saved: Saved,
    vjp: Vjp<Saved>,
  ): T {
    const variables = inputs.map((input) => input && this.variables.get(input));
    if (variables.every((variable) => variable === undefined)) return output;
    this.watch(output);
    const { base } = this;
    this.nodes.push({
      output: this.variables.get(output) as number,
      inputs: variables,
      saved: saved.map((tensor) => base.keep(base.view(tensor, tensor.shape))),
      vjp: vjp as unknown as Vjp<readonly Tensor[]>,
    });
    return output;
  }

  /**
   * Gradients of sum(output * grad) by each of `targets`, in the current scope; zeros for one that the output does not depend
   * on. Uses the record up: what an operation saved is freed as soon as its rule has run.
   */
  backward(output: F32, grad: F32, targets: readonly F32[]): F32[] {
    const { base } = this;
    if (!sameShape(output.shape, grad.shape)) {
      throw usageError(`backward: the output has shape [${output.shape}], its gradient [${grad.shape}]`);
    }
    const wanted = targets.map((target) => this.variables.get(target));
    const keep = new Set(wanted);
    return base.scope(() => {
      const grads = new Map<number, F32>();
      const start = this.variables.get(output);
      if (start !== undefined) grads.set(start, base.view(grad, grad.shape));
      for (let node = this.nodes.pop(); node; node = this.nodes.pop()) {
        const { inputs, saved, vjp, output: variable } = node;
        try {
          const own = grads.get(variable);
          if (!own) continue;
          const parts = base.scope(() => vjp(own, saved));
          for (const [index, part] of parts.entries()) {
            const input = inputs[index];
            if (input !== undefined && part) accumulate(base, grads, input, part);
          }
          // after all of them: a rule may hand the same tensor to two inputs, or its own gradient on
          for (const part of parts) if (part !== own) part?.dispose();
          if (!keep.has(variable)) {
            grads.delete(variable);
            own.dispose();
          }
        } finally {
          for (const tensor of saved) tensor.dispose(); // where the rule failed, too: nothing else knows of them
        }
      }
      return targets.map((target, index) => {
        const variable = wanted[index];
        const own = variable === undefined ? undefined : grads.get(variable);
        return own ?? base.create(target.shape);
      });
    });
  }

  /** Forgets everything recorded and frees what it held; watched tensors stay watched. */
  clear(): void {
    for (const { saved } of this.nodes) for (const tensor of saved) tensor.dispose();
    this.nodes = [];
  }
}

function accumulate(base: Engine, grads: Map<number, F32>, variable: number, part: F32): void {
  const before = grads.get(variable);
  if (!before) {
    grads.set(variable, base.view(part, part.shape));
    return;
  }
  grads.set(variable, base.add(before, part));
  before.dispose();
}
