import type { Engine } from "../engine/engine.js";
import { numericError, usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import type { LinearStatistics } from "./method.js";

/**
 * Sums over calibration tokens; its tensors live in the scope of `createStatistics`, at most until `finishStatistics`.
 */
export interface StatisticsAccumulator {
  columns: number;
  /** sum x x^T, [I, I]. */
  hessian: F32;
  /** sum (x_full - x) x^T, [I, I]. */
  correction?: F32;
  tokens: number;
  /** Tokens in `correction`. */
  correctionTokens: number;
}

/** Zero sums for inputs of `columns` features, in the current scope. */
export function createStatistics(engine: Engine, columns: number, withCorrection: boolean): StatisticsAccumulator {
  const zeros = () => engine.create([columns, columns]);
  return {
    columns,
    hessian: zeros(),
    correction: withCorrection ? zeros() : undefined,
    tokens: 0,
    correctionTokens: 0,
  };
}

/** x_full - x for an input [.., I] and what the full-precision model has there: what `accumulate` takes. */
export function shortfallOf(engine: Engine, input: F32, fullInput: F32): F32 {
  if (fullInput.size !== input.size)
    throw usageError(`accumulate: expected full-precision inputs [${input.shape}], got [${fullInput.shape}]`);
  return engine.scope(() => engine.subtract(engine.view(fullInput, input.shape), input));
}

/**
 * Adds the tokens of input [.., I] to the sums, in place. `shortfall`, of the same shape, goes into the correction, where the
 * accumulator has one. The sums do not depend on the number of threads, only on the order of the calls. Wants no memory.
 */
export function accumulate(engine: Engine, accumulator: StatisticsAccumulator, input: F32, shortfall?: F32): void {
  const { columns, hessian, correction } = accumulator;
  const tokens = input.size / columns;
  if (input.shape.at(-1) !== columns)
    throw usageError(`accumulate: expected inputs [.., ${columns}], got [${input.shape}]`);
  engine.scope(() => {
    const rows = engine.view(input, [tokens, columns]);
    engine.gram(hessian, rows);
    if (!correction || !shortfall) return;
    const missing = engine.view(shortfall, [tokens, columns]);
    engine.matmul(missing, rows, { transposeA: true, accumulate: correction, exact: true });
  });
  accumulator.tokens += tokens;
  if (correction && shortfall) accumulator.correctionTokens += tokens;
}

/**
 * The means, in the current scope; the accumulator's own tensors are freed, unless it rejects. `where` names the inputs in messages.
 * Rejects with kind "numeric" when the sums are not finite, "usage" when there were no tokens.
 */
export async function finishStatistics(
  engine: Engine,
  accumulator: StatisticsAccumulator,
  where: string,
): Promise<LinearStatistics> {
  const { tokens, correctionTokens } = accumulator;
  if (tokens === 0) throw usageError(`${where}: no calibration tokens were seen`, "give a calibration text");
  const hessian = engine.scale(accumulator.hessian, 1 / tokens);
  const correction =
    accumulator.correction && correctionTokens > 0
      ? engine.scale(accumulator.correction, 1 / correctionTokens)
      : undefined;
  for (const mean of [hessian, correction])
    if (mean && !(await engine.allFinite(mean)))
      throw numericError(
        `${where}: the calibration activations contain NaN or infinity`,
        "check the checkpoint's weights; a model that overflows in f32 cannot be calibrated",
      );
  accumulator.hessian.dispose();
  accumulator.correction?.dispose();
  return { hessian, correction, tokens };
}
