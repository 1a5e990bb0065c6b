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
    return {
      vectors: engine.gatherRows(vectors, engine.upload(chosen, [wanted], "i32")),
      weights: engine.upload(
        Float32Array.from(chosen, (i) => factors[i]),
        [wanted],
        "f32",
      ),
    };
  });
}
