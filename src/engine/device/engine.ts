import type { DeviceMemory } from "./memory.js";
import { affineOperations } from "./operations/affine.js";
import { attentionOperations } from "./operations/attention.js";
import { attentionGradOperations } from "./operations/attention-grad.js";
import { castOperations } from "./operations/cast.js";
import { nearestOperations } from "./operations/codebook.js";
import { coordinateOperations } from "./operations/coordinate.js";
import { elementwiseOperations } from "./operations/elementwise.js";
import { fusedGridOperations } from "./operations/fused-grid.js";
import { gridOperations } from "./operations/grid.js";
import { hadamardOperations } from "./operations/hadamard.js";
import { layoutOperations } from "./operations/layout.js";
import { lossOperations } from "./operations/loss.js";
import { matrixOperations } from "./operations/matrices.js";
import { normOperations } from "./operations/norms.js";
import { reductionOperations } from "./operations/reductions.js";
import { rowGridOperations } from "./operations/rowgrid.js";
import { segmentOperations } from "./operations/segment.js";
import { sweepOperations } from "./operations/sweep.js";
import { trainingOperations } from "./operations/training.js";

/** The operations that all devices do by kernels of the same names. */
export const deviceOperations = (memory: DeviceMemory) => ({
  ...attentionOperations(memory),
  ...attentionGradOperations(memory),
  ...castOperations(memory),
  ...elementwiseOperations(memory),
  ...layoutOperations(memory),
  ...normOperations(memory),
  ...lossOperations(memory),
  ...matrixOperations(memory),
  ...hadamardOperations(memory),
  ...reductionOperations(memory),
  ...gridOperations(memory),
  ...fusedGridOperations(memory),
  ...affineOperations(memory),
  ...rowGridOperations(memory),
  ...trainingOperations(memory),
  ...nearestOperations(memory),
  ...segmentOperations(memory),
  ...sweepOperations(memory),
  ...coordinateOperations(memory),
});
