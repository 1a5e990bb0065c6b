import { usageError } from "../errors.js";
import type { LinearDone } from "./events.js";
import { isTrained, needsStatistics } from "./methods.js";
import type { PlannedLinear } from "./plan.js";
import type { JobRun } from "./quantize.js";
import type { Recipe } from "./recipe.js";

// One job on several devices: each has a run of its own, which passes the calibration text through the blocks up to its last and
// quantizes the linears of its own ones; what is finished meets in one journal. Only where a block does not see what the
// quantized blocks before it produce: VPTQ's paper measures that way (arXiv 2409.17066, section 3).

/** The part that one run takes. */
export interface JobShare {
  /** Blocks, of so many, whose linears this run quantizes. */
  isMine(block: number, blocks: number): boolean;
  /** Resolves when the other runs can begin; rejects where one cannot, before hours of work, and stops the rest. */
  ready?(): Promise<void>;
  /**
   * Sets the other runs off, once the journal is open, and resolves when their linears are in it; `onLinear` gets each as it is
   * done. Absent in the other runs.
   */
  others?(onLinear: (done: LinearDone) => void): Promise<void>;
  /** Stops them, set off or not: this run has failed, or will never come to them. `others` then rejects. */
  cancel?(): void;
}

/** What passing the text through a block costs, as a share of quantizing it: for a 7B by VPTQ, measured on an H200. */
const PASSING = 0.1;

/**
 * The share of run `index` of `count`: blocks one behind the other, for then a run passes the text only through those of the runs
 * before it. A run has fewer blocks by what that costs, so that all end together.
 */
export function shareOf(index: number, count: number): JobShare {
  const weights = Array.from({ length: count }, (_, run) => (1 - PASSING) ** run);
  const sum = (runs: number) => weights.slice(0, runs).reduce((total, weight) => total + weight, 0);
  const begin = (run: number, blocks: number) => Math.round((blocks * sum(run)) / sum(count));
  return { isMine: (block, blocks) => begin(index, blocks) <= block && block < begin(index + 1, blocks) };
}

export const isMine = ({ share, source }: Pick<JobRun, "share" | "source">, block: number): boolean =>
  share?.isMine(block, source.blocks) ?? true;

/** Throws "usage" where blocks depend on those before them. */
export function requireIndependent(planned: readonly PlannedLinear[], { method, propagate }: Recipe): void {
  const trained = isTrained([...planned]);
  if (!trained && (propagate === "full" || !planned.some(({ plan }) => needsStatistics(plan)))) return;
  throw usageError(
    `${method} on several devices: here each block sees what the quantized blocks before it produce`,
    trained ? "name one device" : "measure on the full-precision model with --propagate full, or name one device",
  );
}

/** Does this run's own share beside the others. Rejects with the first failure, when all of them have come to their end. */
export async function besideOthers<T>(run: JobRun, own: () => Promise<T>): Promise<T> {
  const { share } = run;
  if (!share) return own();
  requireIndependent(run.planned, run.recipe);
  await share.ready?.();
  const operations = new Map(run.planned.map((linear) => [linear.spec.name, linear.operations]));
  const others = share.others?.((done) => {
    run.tell(done);
    run.advance(operations.get(done.name) ?? 0);
  });
  const [mine, theirs] = await Promise.allSettled([
    own().catch((error: unknown) => {
      share.cancel?.();
      throw error;
    }),
    others,
  ]);
  if (mine.status === "rejected") throw mine.reason;
  if (theirs.status === "rejected") throw theirs.reason;
  return mine.value;
}
