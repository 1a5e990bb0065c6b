import type { F32 } from "../../tensor/index.js";
import { checkAffineGrid, checkAffineSweep } from "../check.js";
import type { AffineGrid, AffineGridOptions, AffineSweepOptions, AffineSweepResult, Engine } from "../engine.js";
import type { WasmContext } from "./context.js";

// As in assembly/lib/feedback.ts.
const BLOCK = 64;
const TILE = 16;

/** Rows of a slab at most, a multiple of 8. */
const SLAB_ROWS = 64;

/** The affine grid and its sweep (assembly/affine.ts). */
export function affineOperations(context: WasmContext): Pick<Engine, "affineGrid" | "affineSweep"> {
  const { runtime, empty, address, view } = context;

  /** Fewer rows when the threads would not all have some. */
  const slabRows = (rows: number): number =>
    Math.min(SLAB_ROWS, 8 * Math.max(1, Math.ceil(rows / (2 * runtime.threads) / 8)));

  function withGroups(groupOfColumn: Int32Array, body: (groups: number) => void): void {
    runtime.withTemporary(groupOfColumn.byteLength, (groups) => {
      runtime.view("i32", groups, groupOfColumn.length).set(groupOfColumn);
      body(groups);
    });
  }

  function affineGrid(weights: F32, options: AffineGridOptions): AffineGrid {
    const { columns, rows } = checkAffineGrid(weights, options);
    const { bits, symmetric, groups, groupOfColumn } = options;
    const from = address(weights);
    const [scale, zero] = [empty([groups, rows]), empty([groups, rows])];
    const slab = slabRows(rows);
    withGroups(groupOfColumn, (group) => {
      const args = [from, columns, rows, slab, group, groups, 2 ** bits - 1, Number(symmetric)];
      const grain = Math.ceil(2 ** 15 / (slab * (columns + groups + 1)));
      runtime.run(
        "affineGrid",
        Math.ceil(rows / slab),
        grain,
        [...args, address(scale), address(zero)],
        8 * groups * slab,
      );
    });
    return { scale, zero };
  }

  function affineSweep(weights: F32, feedback: F32 | undefined, options: AffineSweepOptions): AffineSweepResult {
    const { columns, rows } = checkAffineSweep(weights, feedback, options);
    const { bits, symmetric, groups, groupOfColumn, grid } = options;
    const [from, factors] = [address(weights), feedback ? address(feedback) : 0];
    const [scale, zero] = [empty([groups, rows]), empty([groups, rows])];
    if (grid) {
      view(scale).set(view(grid.scale));
      view(zero).set(view(grid.zero));
    }
    const codes = empty(weights.shape, "u8");
    const quantized = empty(weights.shape);
    const slab = slabRows(rows);
    withGroups(groupOfColumn, (group) => {
      const shared = [from, factors, columns, rows, slab, group, groups, 2 ** bits - 1, Number(symmetric)];
      const tensors = [scale, zero, codes, quantized].map(address);
      const bytes = (columns + TILE + BLOCK + 4) * 4 * slab + 4 * BLOCK * TILE + 4 * columns + groups;
      runtime.run("affineSweep", Math.ceil(rows / slab), 1, [...shared, Number(grid !== undefined), ...tensors], bytes);
    });
    return { codes, quantized, scale, zero };
  }

  return { affineGrid, affineSweep };
}
