import type { CudaDriver } from "./driver.js";

/** Pairs of events that wait before their times are read. */
const BATCH = 4096;

/** Times of kernels and library calls on the card, by name: for the laboratory and for finding what a run waits for. */
export class CudaProfile {
  private readonly pending: { name: string; begin: number; end: number }[] = [];
  private readonly free: number[] = [];
  private readonly sums = new Map<string, { calls: number; milliseconds: number }>();

  constructor(
    private readonly driver: CudaDriver,
    private readonly stream: number,
  ) {}

  time(name: string, launch: () => void): void {
    const [begin, end] = [this.event(), this.event()];
    this.driver.call("cuEventRecord", begin, this.stream);
    launch();
    this.driver.call("cuEventRecord", end, this.stream);
    this.pending.push({ name, begin, end });
    if (this.pending.length >= BATCH) this.settle();
  }

  private event(): number {
    return this.free.pop() ?? this.driver.handle("cuEventCreate", 0);
  }

  private settle(): void {
    const elapsed = new Float32Array(1);
    for (const { name, begin, end } of this.pending.splice(0)) {
      this.driver.call("cuEventSynchronize", end);
      this.driver.call("cuEventElapsedTime", elapsed, begin, end);
      const sum = this.sums.get(name) ?? { calls: 0, milliseconds: 0 };
      this.sums.set(name, { calls: sum.calls + 1, milliseconds: sum.milliseconds + elapsed[0] });
      this.free.push(begin, end);
    }
  }

  /** Lines of a table, what took longest first. */
  report(): string[] {
    this.settle();
    const rows = [...this.sums].sort(([, a], [, b]) => b.milliseconds - a.milliseconds);
    const total = rows.reduce((sum, [, { milliseconds }]) => sum + milliseconds, 0);
    return [
      `on the card ${total.toFixed(1)} ms:`,
      ...rows.map(
        ([name, { calls, milliseconds }]) =>
          `${milliseconds.toFixed(2).padStart(10)} ms ${`${((100 * milliseconds) / total).toFixed(1)} %`.padStart(7)} ` +
          `${String(calls).padStart(7)} calls ${((1000 * milliseconds) / calls).toFixed(1).padStart(9)} us  ${name}`,
      ),
    ];
  }

  close(): void {
    this.settle();
    for (const event of this.free) this.driver.call("cuEventDestroy", event);
  }
}
