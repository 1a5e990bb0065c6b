import { describe, expect, it } from "vitest";
import { createRandom } from "../../../random.js";
import { sweepBlocks } from "./sweepblocks.js";

const MOST = 16;
const consecutive = (columns: number, group: number) =>
  Int32Array.from({ length: columns }, (_, column) => Math.floor(column / group));

/** Columns whose groups come in no order, as in a sweep by importance. */
function permuted(columns: number, group: number): Int32Array {
  const random = createRandom(3, "groups", `${columns} ${group}`);
  const result = consecutive(columns, group);
  for (let i = columns - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

describe("the blocks of a sweep", () => {
  const groupings = [0, 1, 15, 16, 17, 100].flatMap((columns) =>
    [1, 3, 16, 24, 100].flatMap((group) => [consecutive(columns, group), permuted(columns, group)]),
  );

  it("cover all columns in order, none larger than a kernel takes", () => {
    for (const groupOfColumn of groupings)
      for (const fitted of [false, true]) {
        const { blocks } = sweepBlocks(groupOfColumn, 100, MOST, fitted);
        let next = 0;
        for (const { begin, end } of blocks) {
          expect(begin).toBe(next);
          expect(end).toBeGreaterThan(begin);
          expect(end - begin).toBeLessThanOrEqual(MOST);
          next = end;
        }
        expect(next).toBe(groupOfColumn.length);
      }
  });

  it("take the grid of each group once, when the first of its columns has its turn and all of them are up to date", () => {
    for (const groupOfColumn of groupings) {
      const { blocks, marks } = sweepBlocks(groupOfColumn, 100, MOST, true);
      const taken: number[] = [];
      for (const { begin, end, fits } of blocks) {
        // between two blocks all columns are up to date
        for (const group of fits) {
          expect(groupOfColumn.indexOf(group)).toBe(begin);
          taken.push(group);
        }
        for (let column = begin; column < end; column++) {
          const group = groupOfColumn[column];
          expect(marks[column] >> 1).toBe(group);
          if (marks[column] % 2 === 0) continue;
          // within a block those of the block are
          expect(groupOfColumn.indexOf(group)).toBe(column);
          expect(groupOfColumn.lastIndexOf(group)).toBeLessThan(end);
          taken.push(group);
        }
      }
      expect(taken).toEqual([...new Set(groupOfColumn)]);
    }
  });

  it("are as large as can be when the grids are given or groups fit in", () => {
    expect(sweepBlocks(permuted(40, 3), 20, MOST, false).blocks.map(({ end }) => end)).toEqual([16, 32, 40]);
    expect(sweepBlocks(consecutive(40, 8), 5, MOST, true).blocks.map(({ end }) => end)).toEqual([16, 32, 40]);
    expect(sweepBlocks(consecutive(40, 24), 2, MOST, true).blocks).toEqual([
      { begin: 0, end: 16, fits: [0] },
      { begin: 16, end: 24, fits: [] },
      { begin: 24, end: 40, fits: [] },
    ]);
  });
});
