/** Columns [begin, end) of a sweep that a kernel takes at once. */
export interface SweepBlock {
  begin: number;
  end: number;
  /** Groups whose grids are to be taken before it. */
  fits: number[];
}

/**
 * Blocks of at most `most` columns, and for each column 2 * its group, + 1 where the kernel takes the grid of the group when it
 * comes to this column. A grid is taken from all columns of its group as they are when the first has its turn: within a block
 * the kernel can do so, but not where a group reaches beyond; then a block must begin at the first of its columns.
 */
export function sweepBlocks(
  groupOfColumn: Int32Array,
  groups: number,
  most: number,
  fitted: boolean,
): { blocks: SweepBlock[]; marks: Int32Array } {
  const columns = groupOfColumn.length;
  const first = new Int32Array(groups).fill(columns);
  const last = new Int32Array(groups).fill(-1);
  for (const [column, group] of groupOfColumn.entries()) {
    first[group] = Math.min(first[group], column);
    last[group] = column;
  }
  const isFirst = (column: number) => fitted && first[groupOfColumn[column]] === column;
  const marks = groupOfColumn.map((group) => 2 * group);
  const blocks: SweepBlock[] = [];
  for (let begin = 0; begin < columns; begin = blocks[blocks.length - 1].end) {
    let end = Math.min(columns, begin + most);
    // an end that moves may leave groups beyond it that were within: look again
    for (let column = begin + 1; column < end; column++)
      if (isFirst(column) && last[groupOfColumn[column]] >= end) {
        end = column;
        column = begin;
      }
    const group = groupOfColumn[begin];
    blocks.push({ begin, end, fits: isFirst(begin) && last[group] >= end ? [group] : [] });
    for (let column = begin; column < end; column++)
      if (isFirst(column) && last[groupOfColumn[column]] < end) marks[column]++;
  }
  return { blocks, marks };
}
