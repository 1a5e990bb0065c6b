import { expect, it } from "vitest";
import { createReferenceEngine } from "../../engine/reference/index.js";
import { createRandom } from "../../random.js";
import { randomSubset } from "./subset.js";

const engine = createReferenceEngine();

/** Algorithm S as Knuth writes it, a number at a time. */
function byDefinition(count: number, wanted: number, random: ReturnType<typeof createRandom>): number[] {
  const chosen: number[] = [];
  for (let i = 0; chosen.length < wanted; i++) {
    if ((count - i) * random.next() < wanted - chosen.length) chosen.push(i);
  }
  return chosen;
}

it.each([
  [10, 1],
  [10, 9],
  [9000, 8999],
  [40_000, 6000],
  [40_000, 3],
])("a random subset of %i takes %i as selection sampling does, and as many random numbers", async (count, wanted) => {
  const random = createRandom(count, "subset");
  const same = createRandom(count, "subset");
  await engine.scope(async () => {
    const numbers = Float32Array.from({ length: count }, (_, i) => i);
    const [vectors, weights] = [engine.upload(numbers, [count, 1], "f32"), engine.upload(numbers, [count], "f32")];
    const subset = await randomSubset(engine, vectors, weights, wanted, random);
    const expected = byDefinition(count, wanted, same);
    expect(Array.from(await engine.read(subset.vectors))).toEqual(expected);
    expect(Array.from(await engine.read(subset.weights))).toEqual(expected);
  });
  expect(random.next()).toBe(same.next());
});
