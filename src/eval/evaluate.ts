import { requireNoOverflow } from "../engine/overflow.js";
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

/** A window is done. */
export interface EvaluationEvent {
  type: "window";
  /** Index of the model whose window it is; "against" for the one that the others are compared with. */
  model: number | "against";
  /** The model's perplexity over its windows so far; not known yet for "against". */
  perplexity?: number;
  /** Windows done, of all models. */
  done: number;
  windows: number;
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
  /** Of this model; the other model's share is in it where there is no third. */
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
  const [evaluation] = await evaluateAll([decoder], windows, options);
  return evaluation;
}

/** `evaluate` for several models on one engine; the model that they are compared with runs once for all of them. */
export async function evaluateAll(
  decoders: readonly Decoder[],
  windows: readonly Int32Array[],
  options: EvaluationOptions = {},
): Promise<Evaluation[]> {
  const { against, onEvent, signal, hiddenBudget = 256 * 2 ** 20, slabBytes } = options;
  if (against) for (const decoder of decoders) requireComparable(decoder, against);
  if (windows.some((window) => window.length < 2)) throw usageError("a window needs at least 2 tokens to predict one");
  const startedAt = performance.now();
  const elapsed = () => (performance.now() - startedAt) / 1000;
  const scores = decoders.map((decoder) => ({ decoder, score: new Score(decoder, against, slabBytes), seconds: 0 }));
  const total = windows.length * (decoders.length + (against ? 1 : 0));
  let done = 0;
  const finish = (model: EvaluationEvent["model"], perplexity?: number) => {
    done++;
    const elapsedSeconds = elapsed();
    const remainingSeconds = (elapsedSeconds / done) * (total - done);
    onEvent?.({ type: "window", model, perplexity, done, windows: total, elapsedSeconds, remainingSeconds });
  };
  for (const group of groupsOf(windows, against, hiddenBudget)) {
    const fullHidden: Float32Array[] = [];
    await against?.runWindows(
      group,
      async (index, hidden) => {
        fullHidden[index] = await against.engine.read(hidden);
        finish("against");
      },
      { signal },
    );
    for (const [model, entry] of scores.entries()) {
      const since = elapsed();
      await entry.decoder.runWindows(
        group,
        async (index, hidden) => {
          await entry.score.add(group[index], hidden, fullHidden[index]);
          finish(model, perplexityOf(entry.score.loss));
        },
        { signal },
      );
      entry.seconds += elapsed() - since;
      await requireNoOverflow(entry.decoder.engine, "the evaluation");
    }
    if (against) await requireNoOverflow(against.engine, "the evaluation of the other model");
  }
  return scores.map(({ score, seconds }) => ({
    ...score.result(),
    windows: windows.length,
    seconds: decoders.length === 1 ? elapsed() : seconds,
  }));
}

/** The sums of one model over the windows so far. */
class Score {
  readonly loss: Loss = noLoss();
  private readonly fullLoss: Loss = noLoss();
  private readonly divergence: Divergence = noDivergence();

  constructor(
    private readonly decoder: Decoder,
    private readonly against: Decoder | undefined,
    private readonly slabBytes: number | undefined,
  ) {}

  /** A window [T] with its hidden states [1, T, D] and the other model's, on the host. */
  async add(window: Int32Array, hidden: F32, fullHidden?: Float32Array): Promise<void> {
    const { decoder, against, loss, fullLoss, divergence } = this;
    const { engine } = decoder;
    const width = against?.config.hidden ?? 0;
    const full = fullHidden && engine.upload(fullHidden, [1, window.length, width], "f32");
    await forEachSlab(
      decoder,
      hidden,
      async (logits, begin) => {
        const [rows] = logits.shape;
        const targets = engine.upload(window.slice(begin + 1, begin + 1 + rows), [rows], "i32");
        await addLosses(engine, loss, logits, targets);
        if (!full || !against) return;
        const reference = await against.head(engine.view(full, [rows, width], begin * width));
        await addLosses(engine, fullLoss, reference, targets);
        await addDivergence(engine, divergence, reference, logits);
      },
      this.slabBytes,
    );
    full?.dispose();
    if (Number.isFinite(loss.sum) && Number.isFinite(divergence.sum)) return;
    throw numericError("the model's logits are not finite", "its weights are damaged, or too large for f32 arithmetic");
  }

  result(): Omit<Evaluation, "windows" | "seconds"> {
    const { loss, fullLoss, divergence } = this;
    return {
      perplexity: perplexityOf(loss),
      loss: loss.sum / loss.tokens,
      tokens: loss.tokens,
      ...(this.against ? { ...meanDivergence(divergence), againstPerplexity: perplexityOf(fullLoss) } : {}),
    };
  }
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
