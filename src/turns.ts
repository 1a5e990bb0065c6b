import { throwIfAborted } from "./errors.js";

let lastTurn = 0;

/** Node's: a turn of the event loop without the millisecond that a timer takes at least, in which a card would stand idle. */
const { setImmediate: immediately } = globalThis as { setImmediate?: (run: () => void) => unknown };

const turn = (): Promise<void> =>
  new Promise((resolve) => {
    if (immediately) immediately(resolve);
    else setTimeout(resolve, 0);
  });

/**
 * Gives timers, signals and output a turn of the event loop now and then, which long arithmetic alone never does, and stops
 * where the signal has fired. Call it in loops whose rounds take up to a second or so.
 */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  if (performance.now() - lastTurn > 80) {
    await turn();
    lastTurn = performance.now();
  }
  throwIfAborted(signal);
}
