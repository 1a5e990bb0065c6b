import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { QuantizedRecord } from "./record.js";

/** What a linear's inputs looked like over the calibration tokens. */
export interface LinearStatistics {
  /** E[x x^T] over calibration tokens, undamped, [I, I]. */
  hessian: F32;
  /** E[(x_full - x) x^T]: how the quantized stream's inputs fall short of the full-precision ones, [I, I]. */
  correction?: F32;
  tokens: number;
}

export interface MethodContext {
  engine: Engine;
  /** Everything random is drawn from this and the linear's name. */
  seed: number;
  /** Full name of the linear in the checkpoint, for seeds and messages. */
  name: string;
  signal?: AbortSignal;
}

/** Numbers that people want to see of one quantized linear. */
export interface LinearMetrics {
  /** tr(E H E^T) / tr(W H W^T), E = W - W_quantized, H damped. */
  proxyError: number;
  /** Damping that was used, as a share of the mean diagonal of H. */
  damping: number;
  /** Input columns that were never active. */
  deadColumns: number;
  /** What did not go as asked, for people. */
  notes: string[];
}

export interface QuantizedLinear {
  record: QuantizedRecord;
  metrics: LinearMetrics;
}

/** A way to choose the codes of one linear. Pure: the same inputs and seed give the same bytes. */
export interface LinearMethod<Scheme> {
  readonly name: string;
  readonly needs: "nothing" | "hessian";
  /** weight [O, I] is not changed. */
  quantizeLinear(
    weight: F32,
    statistics: LinearStatistics | undefined,
    scheme: Scheme,
    context: MethodContext,
  ): Promise<QuantizedLinear>;
}
