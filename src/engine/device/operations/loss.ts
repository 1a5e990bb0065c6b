import { usageError } from "../../../errors.js";
import { checkCrossEntropy, checkKlDivergence } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows, runWindows } from "../windows.js";

const CROSS_ENTROPY = declareKernel("loss", "crossEntropy", {
  reads: { logits: "f32", targets: "i32" },
  writes: { y: "f32", fault: "i32" },
  numbers: { width: "u32", check: "i32" },
});
const KL_DIVERGENCE = declareKernel("loss", "klDivergence", {
  reads: { reference: "f32", logits: "f32" },
  writes: { y: "f32" },
  numbers: { width: "u32" },
});

export const lossOperations = (memory: DeviceMemory): Pick<Engine, "crossEntropy" | "klDivergence"> => ({
  crossEntropy(logits, targets) {
    const { rows, columns } = checkCrossEntropy(logits, targets);
    const y = memory.empty([rows]);
    const faultFrom = (first: number) =>
      memory.fault((value, at) =>
        usageError(`crossEntropy: expected indices within 0 .. ${columns - 1}, got ${value} at ${first + at}`),
      );
    const division = { extent: rows, each: [columns, 1, 1] };
    inWindows(memory, [logits, targets, y], division, (tensors, count, first) => {
      const { word, number } = faultFrom(first);
      memory.run(CROSS_ENTROPY, { groups: count, tensors: [...tensors, word], numbers: [columns, number] });
    });
    return y;
  },

  klDivergence(reference, logits) {
    const { rows, columns } = checkKlDivergence(reference, logits);
    const y = memory.empty([rows]);
    const division = { extent: rows, each: [columns, columns, 1] };
    runWindows(memory, KL_DIVERGENCE, [reference, logits, y], division, (groups) => ({ groups, numbers: [columns] }));
    return y;
  },
});
