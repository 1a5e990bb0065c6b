import { compositeOperations } from "../composite.js";
import type { Engine } from "../engine.js";
import { EngineMemory, type MemoryBlock } from "../memory.js";
import { affineOperations } from "./affine.js";
import { castOperations } from "./cast.js";
import { codebookOperations } from "./codebook.js";
import { coordinateOperations } from "./coordinate.js";
import { attentionOperations, normOperations } from "./decoder.js";
import { elementwiseOperations } from "./elementwise.js";
import { factorOperations } from "./factor.js";
import { attentionGradOperations, elementwiseGradOperations, normGradOperations } from "./gradients.js";
import { gridOperations } from "./grid.js";
import { hadamardOperations } from "./hadamard.js";
import { layoutOperations } from "./layout.js";
import { lossOperations } from "./loss.js";
import { matrixOperations } from "./matrices.js";
import { reductionOperations } from "./reductions.js";
import { rowGridOperations } from "./rowgrid.js";
import { sweepOperations } from "./sweep.js";
import { trainingOperations } from "./training.js";

class ReferenceMemory extends EngineMemory {
  protected allocate(bytes: number): MemoryBlock {
    return { memory: new ArrayBuffer(bytes), address: 0, release: () => {} };
  }
}

/**
 * The specification: every operation of engine.ts as a plain loop, f32 in memory and mostly f64 in registers. For tests, and
 * for what no other engine does.
 */
export function createReferenceEngine(): Engine {
  const memory = new ReferenceMemory();
  const engine = Object.assign(
    memory,
    {
      name: "reference",
      description: "plain loops, one thread",
      threads: 1,
      precision: "f32",
      arithmetic: "reference",
    } as const,
    castOperations(memory),
    elementwiseOperations(memory),
    layoutOperations(memory),
    reductionOperations(memory),
    matrixOperations(memory),
    factorOperations(memory),
    hadamardOperations(memory),
    normOperations(memory),
    attentionOperations(memory),
    lossOperations(memory),
    elementwiseGradOperations(memory),
    normGradOperations(memory),
    attentionGradOperations(memory),
    trainingOperations(memory),
    codebookOperations(memory),
    sweepOperations(memory),
    coordinateOperations(memory),
    affineOperations(memory),
    gridOperations(memory),
    rowGridOperations(memory),
  );
  return Object.assign(engine, compositeOperations(engine));
}
