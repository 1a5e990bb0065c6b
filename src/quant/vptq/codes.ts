import type { CodebookSegment, Engine } from "../../engine/engine.js";
import type { F32, I32 } from "../../tensor/index.js";

/** A vector-quantized W^T [I, P] in sweep order: codebooks and the chosen codewords. */
export interface Codes {
  segments: CodebookSegment[];
  /** Per segment and stage, i32 [end - begin, P / v]. */
  indices: I32[][];
}

/** Q^T [I, P]: each vector is the sum of one codeword a stage. */
export function decodeCodes(engine: Engine, { segments, indices }: Codes, columns: number, paddedRows: number): F32 {
  return engine.scope(() => {
    const decodeSegment = (s: number): F32 => {
      const { begin, end, stages } = segments[s];
      const sum = engine.gatherRows(stages[0], indices[s][0]); // [columns, P / v, v]
      for (let stage = 1; stage < stages.length; stage++)
        engine.addInto(sum, engine.gatherRows(stages[stage], indices[s][stage]));
      return engine.view(sum, [end - begin, paddedRows]);
    };
    if (segments.length === 1) return decodeSegment(0);
    const quantized = engine.create([columns, paddedRows]);
    for (const [s, { begin }] of segments.entries())
      engine.scope(() => engine.copyInto(quantized, decodeSegment(s), begin * paddedRows));
    return quantized;
  });
}

/** The rows [begin, end) of [I, P] as vectors [n, v], sharing memory. */
export function vectorsOf(engine: Engine, columns: F32, begin: number, end: number, vectorLength: number): F32 {
  const paddedRows = columns.shape[1];
  return engine.view(columns, [((end - begin) * paddedRows) / vectorLength, vectorLength], begin * paddedRows);
}

/** Rounds to the nearest f16 values. */
export function roundToStorage(engine: Engine, values: F32): F32 {
  return engine.scope(() => engine.cast(engine.cast(values, "f16"), "f32"));
}
