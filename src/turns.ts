import { throwIfAborted } from "./errors.js";

let lastTurn = 0;

/**
 * Gives timers, signals and output a turn of the event loop now and then, which long arithmetic alone never does, and stops
 * where the signal has fired. Call it in loops whose rounds take up to a second or so.
 */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  if (performance.now() - lastTurn > 80) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    lastTurn = performance.now();
  }
  throwIfAborted(signal);
}
