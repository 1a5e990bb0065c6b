import { numericError } from "../errors.js";
import type { Engine } from "./engine.js";

/** Throws "numeric" when a value since the last look was too large for the engine's precision: what came of it is worth nothing. */
export async function requireNoOverflow(engine: Engine, where: string): Promise<void> {
  if (await engine.overflowed())
    throw numericError(
      `${where}: a value was too large for products in ${engine.precision} (65504 at most)`,
      "take --precision tf32 or f32: they have the range of f32",
    );
}
