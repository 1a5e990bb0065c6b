import type { Engine } from "../engine/engine.js";
import type { BlockState } from "../model/block.js";
import type { F32 } from "../tensor/index.js";
import { type ActivationBudget, ActivationStore } from "./activations.js";

/** The parts of a state that are there beside the hidden one. */
export type Parts = { carry: boolean; origin: boolean };
export const HIDDEN_ONLY: Parts = { carry: false, origin: false };

/** Calibration activations of one stream, between stages. Carries are held as f16, the residual stream as f32. */
export class Stream {
  private readonly hidden: ActivationStore;
  private readonly carry: ActivationStore;
  private readonly origin: ActivationStore;

  constructor(engine: Engine, windows: number, budget: ActivationBudget) {
    this.hidden = new ActivationStore(engine, windows, "f32", budget);
    this.carry = new ActivationStore(engine, windows, "f16", budget);
    this.origin = new ActivationStore(engine, windows, "f32", budget);
  }

  async load(window: number, parts: Parts): Promise<BlockState> {
    const state: BlockState = { hidden: await this.hidden.get(window) };
    if (parts.carry) state.carry = await this.carry.get(window);
    if (parts.origin) state.origin = await this.origin.get(window);
    return state;
  }

  /** Stores what changed. Returns which parts there are. */
  async save(window: number, before: BlockState, after: BlockState): Promise<Parts> {
    if (after.hidden !== before.hidden) await this.hidden.put(window, after.hidden);
    if (after.carry && after.carry !== before.carry) await this.carry.put(window, after.carry);
    if (after.origin && after.origin !== before.origin) await this.origin.put(window, after.origin);
    return { carry: after.carry !== undefined, origin: after.origin !== undefined };
  }

  async start(window: number, hidden: F32): Promise<void> {
    await this.hidden.put(window, hidden);
  }

  async close(): Promise<void> {
    await this.hidden.close();
    await this.carry.close();
    await this.origin.close();
  }
}
