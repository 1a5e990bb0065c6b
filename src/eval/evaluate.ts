import { numericError, usageError } from "../errors.js";
import type { Decoder } from "../model/decoder.js";
import type { F32 } from "../tensor/index.js";
import { addDivergence, type Divergence, meanDivergence, noDivergence } from "./divergence.js";
import { addLosses, type Loss, noLoss, perplexityOf } from "./perplexity.js";
import { forEachSlab } from "./rows.js";

export interface EvaluationOptions {
  /** The full-precision model to compare with, on the same engine. */
  against?: Decoder;
  onEvent?: (event: EvaluationEvent) => void;
  signal?: AbortSignal;
  /** Bytes of the other model's hidden states that may wait on the host. Default 256 MB. */
  hiddenBudget?: number;
  /** Bytes of one model's logits that exist at once. Default 64 MB. */
  slabBytes?: number;
}

/** A window is done; the perplexity is that of all windows so far. */
export interface EvaluationEvent {
  type: "window";
  /** Windows done. */
  done: number;
  windows: number;
  perplexity: number;
  elapsedSeconds: number;
  remainingSeconds: number;
}

export interface Evaluation {
  perplexity: number;
  /** Mean -log p of a predicted token, nats. */
  loss: number;
  /** Tokens predicted: T - 1 of each window. */
  tokens: number;
  windows: number;
  /** Mean KL(full || this) of a predicted token, nats; with `against`. */
  klDivergence?: number;
  /** Share of predicted tokens for which both models hold the same one likeliest; with `against`. */
  topAgreement?: number;
  /** The other model's perplexity; with `against`. */
  againstPerplexity?: number;
  seconds: number;
}

/**
 * Perplexity over windows [T] of tokens, each on its own and without a beginning-of-sequence token: the mean is over the T - 1
 * tokens that a window predicts. With `against`, also what the model lost. Sums are f64; logits exist a slab of rows at a time.
 * Throws "usage" for models of different vocabularies, "numeric" for logits that are not finite, "aborted" by the signal.
 */
export async function evaluate(
  decoder: Decoder,
  windows: readonly Int32Array[],
  options: EvaluationOptions = {},
): Promise<Evaluation> {
  const { against, onEvent, signal, hiddenBudget = 256 * 2 ** 20, slabBytes } = options;
  const { engine } = decoder;
  if (against) requireComparable(decoder, against);
  if (windows.some((window) => window.length < 2)) throw usageError("a window needs at least 2 tokens to predict one");
  const startedAt = performance.now();
  const loss: Loss = noLoss();
  const fullLoss: Loss = noLoss();
  const divergence: Divergence = noDivergence();
  let done = 0;

  const score = async (window: Int32Array, hidden: F32, fullHidden: Float32Array | undefined): Promise<void> => {
    const full = fullHidden && engine.upload(fullHidden, [1, window.length, against!.config.hidden], "f32");
    await forEachSlab(
      decoder,
      hidden,
      async (logits, begin) => {
        const targets = engine.upload(window.slice(begin + 1, begin + 1 + logits.shape[0]), [logits.shape[0]], "i32");
        await addLosses(engine, loss, logits, targets);
        if (!full || !against) return;
        const width = against.config.hidden;
        const reference = await against.head(engine.view(full, [logits.shape[0], width], begin * width));
        await addLosses(engine, fullLoss, reference, targets);
        await addDivergence(engine, divergence, reference, logits);
      },
      slabBytes,
    );
    done++;
    if (!Number.isFinite(loss.sum) || !Number.isFinite(divergence.sum)) {
      throw numericError(
        `the logits of window ${done - 1} are not finite`,
        "the weights are damaged, or too large for 32-bit arithmetic",
      );
    }
    const elapsedSeconds = (performance.now() - startedAt) / 1000;
    onEvent?.({
      type: "window",
      done,
      windows: windows.length,
      perplexity: perplexityOf(loss),
      elapsedSeconds,
      remainingSeconds: (elapsedSeconds / done) * (windows.length - done),
    });
  };

  for (const group of groupsOf(windows, against, hiddenBudget)) {
    const fullHidden: Float32Array[] = [];
    await against?.runWindows(
      group,
      async (window, hidden) => {
        fullHidden[window] = await engine.read(hidden);
      },
      { signal },
    );
    await decoder.runWindows(group, (window, hidden) => score(group[window], hidden, fullHidden[window]), { signal });
  }
  return {
    perplexity: perplexityOf(loss),
    loss: loss.sum / loss.tokens,
    tokens: loss.tokens,
    windows: windows.length,
    ...(against ? { ...meanDivergence(divergence), againstPerplexity: perplexityOf(fullLoss) } : {}),
    seconds: (performance.now() - startedAt) / 1000,
  };
}

/** Runs of windows that the other model's hidden states of fit the budget; all windows when there is no other model. */
function groupsOf(
  windows: readonly Int32Array[],
  against: Decoder | undefined,
  budget: number,
): (readonly Int32Array[])[] {
  if (!against) return [windows];
  const groups: Int32Array[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const window of windows) {
    const more = 4 * window.length * against.config.hidden;
    if (bytes + more > budget) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(window);
    bytes += more;
  }
  return groups;
}

function requireComparable(decoder: Decoder, against: Decoder): void {
  if (decoder.engine !== against.engine) throw new Error("the models to compare must be on one engine");
  const [mine, other] = [decoder.config.vocabulary, against.config.vocabulary];
  if (mine !== other) {
    throw usageError(
      `the models have different vocabularies, ${mine} and ${other} tokens: their predictions cannot be compared`,
      "compare with the full-precision model that this one was made from",
    );
  }
}
