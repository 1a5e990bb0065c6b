import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import { Tape } from "./tape.js";

/**
 * Gradient checkpointing (Chen et al., arXiv 1604.06174): runs `body` without recording and remembers its inputs only; the
 * gradient runs it again. `body` must use nothing watched but `inputs`, and no operation whose result changes between runs.
 */
export function checkpoint(tape: Tape, inputs: readonly F32[], body: (engine: Engine, inputs: F32[]) => F32): F32 {
  const { base } = tape;
  const wanted = inputs.map((input) => tape.isWatched(input));
  const output = base.scope(() => body(base, [...inputs]));
  return tape.record(output, inputs, inputs, (grad, saved) => {
    const inner = new Tape(base);
    const leaves = saved.filter((_, index) => wanted[index]);
    for (const leaf of leaves) inner.watch(leaf);
    try {
      const again = body(inner.engine, [...saved]);
      const grads = inner.backward(again, grad, leaves);
      let next = 0;
      return wanted.map((isWanted) => (isWanted ? grads[next++] : undefined));
    } finally {
      inner.clear(); // where something failed on the way
    }
  });
}
