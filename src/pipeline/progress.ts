/**
 * Share done and time left of a job whose parts are known beforehand by their rough cost. Costs are in any unit; the time
 * left follows the speed seen so far, with recent parts weighing more.
 */
export class Progress {
  private done = 0;
  private readonly startedAt: number;
  private readonly marks: { at: number; done: number }[];

  constructor(
    private readonly total: number,
    private readonly now: () => number = () => performance.now() / 1000,
  ) {
    this.startedAt = now();
    this.marks = [{ at: this.startedAt, done: 0 }];
  }

  add(cost: number): void {
    this.done += cost;
    const at = this.now();
    if (at - this.marks.at(-1)!.at < 0.25) return;
    this.marks.push({ at, done: this.done });
    if (this.marks.length > 256) this.marks.splice(1, 128);
  }

  get fraction(): number {
    return this.total > 0 ? Math.min(1, this.done / this.total) : 1;
  }

  get elapsedSeconds(): number {
    return this.now() - this.startedAt;
  }

  /** Mean of the speed since the start and of the speed over the last third of the work done. */
  get remainingSeconds(): number {
    const elapsed = this.elapsedSeconds;
    if (this.done <= 0) return Number.NaN;
    const left = Math.max(0, this.total - this.done);
    const mark = this.marks.findLast(({ done }) => done <= (this.done * 2) / 3) ?? this.marks[0];
    const overall = this.done / elapsed;
    const recent = (this.done - mark.done) / Math.max(1e-9, this.now() - mark.at);
    return left / Math.max(1e-9, (overall + recent) / 2);
  }
}
