import { expect, it } from "vitest";
import { shareOf } from "./share.js";

it("shares give each block to one run, one behind the other, and fewer to later runs", () => {
  for (const count of [1, 2, 3, 8])
    for (const blocks of [0, 1, 4, 12, 32, 80]) {
      const owners = Array.from({ length: blocks }, (_, block) =>
        Array.from({ length: count }, (_, run) => run).filter((run) => shareOf(run, count).isMine(block, blocks)),
      );
      expect(owners.map((own) => own.length)).toEqual(owners.map(() => 1));
      const runs = owners.flat();
      expect(runs).toEqual(runs.toSorted((a, b) => a - b));
      if (blocks >= 4 * count) expect(new Set(runs).size).toBe(count);
    }
  const [first, second] = [0, 1].map((run) =>
    Array.from({ length: 32 }, (_, b) => b).filter((b) => shareOf(run, 2).isMine(b, 32)),
  );
  expect([first.length, second.length]).toEqual([17, 15]);
});
