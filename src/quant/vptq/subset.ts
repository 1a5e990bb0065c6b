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
  const chosen = new Int32Array(wanted);
  for (let i = 0, taken = 0; taken < wanted; i++) if (random.next() * (count - i) < wanted - taken) chosen[taken++] = i;
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
