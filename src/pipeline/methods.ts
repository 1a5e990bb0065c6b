import { quantizeGptq } from "../quant/gptq.js";
import type { LinearStatistics, MethodContext, QuantizedLinear } from "../quant/method.js";
import { quantizeRtn } from "../quant/rtn.js";
import { quantizeVptq } from "../quant/vptq/vptq.js";
import type { F32 } from "../tensor/index.js";
import type { LinearPlan } from "./recipe.js";

/** Whether a plan needs the statistics of its inputs. */
export const needsStatistics = (plan: LinearPlan): boolean => plan.method === "vptq" || plan.method === "gptq";

/** Whether a plan needs a calibration text. */
export const needsCalibration = (plan: LinearPlan): boolean => needsStatistics(plan) || plan.method === "omniquant";

/** Whether whole blocks are trained. `planModel` refuses mixtures with other methods. */
export const isTrained = (planned: readonly { plan: LinearPlan }[]): boolean =>
  planned.some(({ plan }) => plan.method === "omniquant");

/** Whether a plan uses E[(x_full - x) x^T]. */
export const needsCorrection = (plan: LinearPlan): boolean =>
  (plan.method === "vptq" || plan.method === "gptq") && plan.scheme.asymmetric > 0;

/** Runs the planned method on one linear; weight [O, I]. */
export function quantizeLinear(
  plan: Exclude<LinearPlan, { method: "keep" | "omniquant" }>,
  weight: F32,
  statistics: LinearStatistics | undefined,
  context: MethodContext,
): Promise<QuantizedLinear> {
  switch (plan.method) {
    case "vptq":
      return quantizeVptq(weight, statistics, plan.scheme, context);
    case "gptq":
      return quantizeGptq(weight, statistics, plan.scheme, context);
    case "rtn":
      return quantizeRtn(weight, statistics, plan.scheme, context);
    default:
      return plan satisfies never;
  }
}
