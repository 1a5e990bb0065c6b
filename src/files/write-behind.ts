/** Writes that may wait: so much of what is finished is in memory besides. */
const MOST = 3;

/**
 * Writes one after the other beside the work, which should not wait for a disk. After a failure nothing more is written.
 */
export class WriteBehind {
  /** From the oldest on, done ones too. */
  private readonly under: Promise<void>[] = [];

  /** Resolves when `write` may wait for its turn. Rejects with the failure of one before it. */
  async add(write: () => Promise<void>): Promise<void> {
    const own = (this.under.at(-1) ?? Promise.resolve()).then(write);
    own.catch(() => {}); // told by a later `add`, or at the end
    this.under.push(own);
    if (this.under.length > MOST) await this.under.shift();
  }

  /** Resolves when all is written. Rejects with the first failure. */
  end(): Promise<void> {
    return this.under.at(-1) ?? Promise.resolve();
  }
}
