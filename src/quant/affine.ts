import type { AffineGridOptions, AffineSweepResult, Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { AffineScheme } from "./affine-scheme.js";
import type { AffineRecord } from "./record.js";

// What the affine methods share: groups of columns, and the record made of a sweep.

/** Columns in a group of a linear with `columns` inputs. Throws "usage" when the scheme makes no sense. */
export function groupSize(scheme: AffineScheme, columns: number): number {
  if (![2, 3, 4, 6, 8].includes(scheme.bits)) throw usageError(`expected 2, 3, 4, 6 or 8 bits, got ${scheme.bits}`);
  if (scheme.group === "channel") return columns;
  if (!Number.isInteger(scheme.group) || scheme.group < 1)
    throw usageError(`expected a group of one or more columns, or "channel", got ${scheme.group}`);
  return Math.min(scheme.group, columns);
}

/** The grid's options for columns visited in `order`; groups are those of the original columns. */
export function gridOptions(scheme: AffineScheme, group: number, order: Int32Array): AffineGridOptions {
  return {
    bits: scheme.bits,
    symmetric: scheme.symmetric,
    groupOfColumn: order.map((column) => Math.floor(column / group)),
    groups: Math.ceil(order.length / group),
  };
}

/** The record of a sweep whose place i held column order[i]; codes [I, O] in sweep order. */
export async function affineRecord(
  engine: Engine,
  sweep: AffineSweepResult,
  scheme: AffineScheme,
  group: number,
  order: Int32Array,
): Promise<AffineRecord> {
  const [columns, rows] = sweep.codes.shape;
  const [groups] = sweep.scale.shape;
  const swept = await engine.read(sweep.codes);
  const codes = new Uint8Array(rows * columns); // [O, I]
  for (let place = 0; place < columns; place++)
    for (let row = 0; row < rows; row++) codes[row * columns + order[place]] = swept[place * rows + row];
  const transposed = <T extends Float32Array | Uint8Array>(source: Float32Array, target: T): T => {
    for (let g = 0; g < groups; g++)
      for (let row = 0; row < rows; row++) target[row * groups + g] = source[g * rows + row];
    return target;
  };
  return {
    kind: "affine",
    storage: "f16",
    rows,
    columns,
    bits: scheme.bits,
    symmetric: scheme.symmetric,
    group,
    codes,
    scale: transposed(await engine.read(sweep.scale), new Float32Array(rows * groups)),
    zero: transposed(await engine.read(sweep.zero), new Uint8Array(rows * groups)),
  };
}
