import type { F32 } from "../../tensor/index.js";
import { checkLayerNorm, checkNormGrad } from "../check.js";
import type { Engine } from "../engine.js";
import { rowBlocks, sumColumns } from "./columns.js";
import type { WasmContext } from "./context.js";

/** Elements worth a thread. */
const GRAIN = 2 ** 15;

/** Layer norm and the gradients of both norms (assembly/norm.ts). */
export function normOperations({
  runtime,
  empty,
  address,
}: WasmContext): Pick<Engine, "layerNorm" | "rmsNormGrad" | "layerNormGrad"> {
  function layerNorm(x: F32, weight: F32, bias: F32, epsilon: number): F32 {
    const { rows, width } = checkLayerNorm(x, weight, bias);
    const args = [address(x), address(weight), address(bias), width, { f32: epsilon }];
    const target = empty(x.shape);
    const grain = Math.ceil(GRAIN / Math.max(1, width));
    runtime.run("layerNorm", width > 0 ? rows : 0, grain, [address(target), ...args]);
    return target;
  }

  /** Gradients of x and of the `parameters` weight and bias, in this order, or none; `shares` are theirs by blocks of rows. */
  function normGrad(
    kernel: "rmsNormGrad" | "layerNormGrad",
    [x, weight, grad]: [F32, F32, F32],
    epsilon: number,
    parameters: 0 | 1 | 2,
  ): F32[] {
    const { rows, width } = checkNormGrad(kernel, x, weight, grad);
    const inputs = [x, weight, grad].map(address);
    const ofX = empty(x.shape);
    const sums = Array.from({ length: parameters }, () => empty(weight.shape));
    const { rowsOfBlock, blocks } = rowBlocks(rows);
    const share = 4 * blocks * width;
    runtime.withTemporary(parameters * share, (shares) => {
      const ofParameters = parameters > 0 ? shares : 0;
      const args = [address(ofX), ofParameters, ...inputs, width, { f32: epsilon }, rows, rowsOfBlock, shares + share];
      const grain = Math.ceil(GRAIN / (rowsOfBlock * Math.max(1, width)));
      runtime.run(kernel, width > 0 ? blocks : 0, grain, args);
      for (const [index, sum] of sums.entries())
        sumColumns(runtime, address(sum), shares + index * share, blocks, width);
    });
    return [ofX, ...sums];
  }

  return {
    layerNorm,
    rmsNormGrad(x, weight, epsilon, grad, wanted) {
      const parameters = wanted?.weight === false ? 0 : 1;
      const [ofX, ofWeight] = normGrad("rmsNormGrad", [x, weight, grad], epsilon, parameters);
      return parameters > 0 ? { x: ofX, weight: ofWeight } : { x: ofX };
    },
    layerNormGrad(x, weight, epsilon, grad, wanted) {
      const parameters = wanted?.weight === false ? 0 : 2;
      const [ofX, ofWeight, bias] = normGrad("layerNormGrad", [x, weight, grad], epsilon, parameters);
      return parameters > 0 ? { x: ofX, weight: ofWeight, bias } : { x: ofX };
    },
  };
}
