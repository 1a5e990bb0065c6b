import type { F32 } from "../../tensor/index.js";
import { checkSquare } from "../check.js";
import type { Engine } from "../engine.js";
import { notPositive, zeroOnDiagonal } from "../factor-errors.js";
import type { WasmContext } from "./context.js";

/** Side of a block, as in assembly/factor.ts. */
const SIDE = 64;
const BLOCK_BYTES = 8 * SIDE * SIDE;
const GROUP_PADDING = 2112;

/** Factorisations in f64 (assembly/factor.ts). Beside the matrices `cholesky` takes half of 8 N^2 bytes for a while. */
export function factorOperations(context: WasmContext): Pick<Engine, "cholesky" | "triangularInverse"> {
  const { runtime, empty, address, view } = context;

  /** Left-looking: a panel of 64 columns takes what the panels before it owe, is factored, and is never touched again. */
  async function cholesky(a: F32): Promise<F32> {
    const n = checkSquare("cholesky", a);
    const source = address(a);
    const target = empty([n, n]);
    const panels = Math.ceil(n / SIDE);
    const rows = 4 * Math.ceil(n / 4);
    const bytesOfTriangle = 8 * SIDE * (panels * rows - (SIDE * panels * (panels - 1)) / 2);
    const failure = runtime.withTemporary(bytesOfTriangle + BLOCK_BYTES * panels + 16, (packed) => {
      const transposed = packed + bytesOfTriangle;
      const status = transposed + BLOCK_BYTES * panels;
      const outcome = new Float64Array(runtime.buffer as ArrayBuffer, status, 2);
      outcome[0] = -1;
      for (let panel = 0; panel < panels && outcome[0] < 0; panel++) {
        const args = [source, n, rows, packed, transposed, panel, status, address(target)];
        const blocks = panels - panel;
        runtime.run("choleskyTranspose", panel, 4, args);
        runtime.run("choleskyUpdate", blocks, panel > 0 ? 1 : 8, args);
        runtime.run("choleskyDiagonal", 1, 1, args);
        runtime.run("choleskySolve", blocks - 1, 1, args);
      }
      if (outcome[0] >= 0) return { pivot: outcome[0], value: outcome[1] };
      const args = [source, n, rows, packed, transposed, 0, status, address(target)];
      runtime.run("choleskyUnpack", n, Math.ceil(2 ** 16 / Math.max(1, n)), args);
      return undefined;
    });
    if (failure) {
      target.dispose();
      throw notPositive(failure.value, failure.pivot, n);
    }
    return target;
  }

  function triangularInverse(lower: F32): F32 {
    const n = checkSquare("triangularInverse", lower);
    const values = view(lower);
    for (let i = 0; i < n; i++) if (values[i * n + i] === 0) throw zeroOnDiagonal(i, n);
    const source = address(lower);
    const target = empty([n, n]);
    const panels = Math.ceil(n / SIDE);
    const scratch = BLOCK_BYTES * (panels + 1) + 16 * GROUP_PADDING;
    runtime.run("triangularInverse", panels, 1, [source, n, address(target)], scratch);
    return target;
  }

  return { cholesky, triangularInverse };
}
