import type { Engine } from "../../engine/engine.js";
import type { Random } from "../../random.js";
import type { F32 } from "../../tensor/index.js";

/**
 * A random subset without repetition, in its order (selection sampling: Knuth, TAOCP 3.4.2, algorithm S); all when few.
 */
export async function randomSubset(
  engine: Engine,
  vectors: F32,
  weights: F32,
  wanted: number,
  random: Random,
): Promise<{ vectors: F32; weights: F32 }> {
  const [count] = vectors.shape;
  if (count <= wanted) return { vectors, weights };
  const chosen = selected(wanted, count, random);
  return engine.scope(async () => {
    const factors = await engine.read(weights);
    const chosenFactors = new Float32Array(wanted);
    for (let i = 0; i < wanted; i++) chosenFactors[i] = factors[chosen[i]];
    return {
      vectors: engine.gatherRows(vectors, engine.upload(chosen, [wanted], "i32")),
      weights: engine.upload(chosenFactors, [wanted], "f32"),
    };
  });
}

const NUMBERS = 4096;

/** `wanted` of 0..count-1, in their order. */
function selected(wanted: number, count: number, random: Random): Int32Array {
  const chosen = new Int32Array(wanted);
  const numbers = new Float64Array(NUMBERS);
  let i = 0;
  let taken = 0;
  while (taken < wanted) {
    const sure = Math.min(NUMBERS, wanted - taken); // so many are looked at in any case
    random.fill(numbers, sure);
    for (let k = 0; k < sure; k++, i++) {
      chosen[taken] = i; // stays where it counts: no branch, which nothing could predict
      taken += Number(numbers[k] * (count - i) < wanted - taken);
    }
  }
  return chosen;
}
