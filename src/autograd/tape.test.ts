import { describe, expect, it } from "vitest";
import { createReferenceEngine } from "../engine/reference/index.js";
import { AdamW, scheduleFactor, warmUpFactor } from "./adamw.js";
import { checkpoint } from "./checkpoint.js";
import { Tape } from "./tape.js";

const upload = (engine: ReturnType<typeof createReferenceEngine>, values: number[], shape: number[]) =>
  engine.upload(Float32Array.from(values), shape, "f32");

describe("Tape", () => {
  it("frees what it saved: live bytes return to the level before a training step", async () => {
    const engine = createReferenceEngine();
    const w = upload(engine, [1, 2, 3, 4], [2, 2]);
    const x = upload(engine, [1, -1, 0.5, 2], [2, 2]);
    const optimizer = new AdamW(engine, [{ name: "w", tensor: w, rate: 0.1 }]);
    const before = engine.liveBytes();
    await engine.scope(async () => {
      const tape = new Tape(engine);
      tape.watch(w);
      const y = tape.engine.scope(() => {
        const hidden = tape.engine.matmul(x, w, { transposeB: true });
        const squared = tape.engine.multiply(hidden, hidden);
        hidden.dispose(); // the forward may let go of what the tape still needs
        return squared;
      });
      const [dw] = tape.backward(y, upload(engine, [1, 1, 1, 1], [2, 2]), [w]);
      await optimizer.step([dw], 1);
      tape.clear();
    });
    expect(engine.liveBytes()).toBe(before);
    optimizer.dispose();
    w.dispose();
    x.dispose();
    expect(engine.liveBytes()).toBe(0);
  });

  it("frees what it saved when it is cleared without a backward pass", () => {
    const engine = createReferenceEngine();
    const a = upload(engine, [1, 2], [2]);
    const before = engine.liveBytes();
    engine.scope(() => {
      const tape = new Tape(engine);
      tape.watch(a);
      tape.engine.exp(tape.engine.multiply(a, a));
      tape.clear();
      return undefined;
    });
    expect(engine.liveBytes()).toBe(before);
  });

  it("gives zeros for a tensor that the output does not depend on", async () => {
    const engine = createReferenceEngine();
    const tape = new Tape(engine);
    const a = tape.watch(upload(engine, [1, 2], [2]));
    const b = tape.watch(upload(engine, [3, 4], [2]));
    const [da, db] = tape.backward(tape.engine.scale(a, 2), upload(engine, [1, 1], [2]), [a, b]);
    expect([...(await engine.read(da))]).toEqual([2, 2]);
    expect([...(await engine.read(db))]).toEqual([0, 0]);
  });

  it("lets go of each gradient on the way back when nothing needs it any more", () => {
    const engine = createReferenceEngine();
    const size = 1000;
    const a = engine.create([size]);
    const grad = engine.create([size]);
    const tape = new Tape(engine);
    tape.watch(a);
    let y = a;
    for (let step = 0; step < 20; step++) y = tape.engine.add(tape.engine.scale(y, 2), a); // a's gradient has 21 parts
    const before = engine.liveBytes();
    engine.resetPeak();
    tape.backward(y, grad, [a]);
    // of y, of the scaled, a's own and a's own with the next part
    expect(engine.peakBytes() - before).toBeLessThanOrEqual(4 * 4 * size);
  });

  it("refuses a watched tensor where there is no rule", () => {
    const engine = createReferenceEngine();
    const tape = new Tape(engine);
    const a = tape.watch(upload(engine, [1, 2], [2]));
    expect(() => tape.engine.addInto(a, a)).toThrow(/addInto has no gradient rule/);
    expect(() => tape.engine.diagonal(tape.engine.view(a, [1, 1]))).toThrow(/diagonal has no gradient rule/);
  });

  it("gives the same gradients through a checkpoint", async () => {
    const engine = createReferenceEngine();
    const gradients = async (through: boolean) => {
      const tape = new Tape(engine);
      const a = tape.watch(upload(engine, [0.5, -1, 2, 0.25], [2, 2]));
      const b = upload(engine, [1, 2, 3, 4], [2, 2]);
      const body = (running: typeof engine, [x, y]: (typeof a)[]) =>
        running.siluMultiply(running.matmul(x, y), running.multiply(x, x));
      const output = through ? checkpoint(tape, [a, b], body) : body(tape.engine, [a, b]);
      const [grad] = tape.backward(output, upload(engine, [1, 2, -1, 0.5], [2, 2]), [a]);
      return [...(await engine.read(grad))];
    };
    const expected = await gradients(false);
    expect(expected.some((value) => value !== 0)).toBe(true);
    expect(await gradients(true)).toEqual(expected);
  });
});

describe("AdamW", () => {
  it("skips a step whose gradient is not finite, and counts it", async () => {
    const engine = createReferenceEngine();
    const w = upload(engine, [1, 2], [2]);
    const optimizer = new AdamW(engine, [{ name: "w", tensor: w, rate: 0.1 }]);
    await optimizer.step([upload(engine, [Number.NaN, 1], [2])], 1);
    expect([...(await engine.read(w))]).toEqual([1, 2]);
    expect([optimizer.steps, optimizer.skipped]).toEqual([0, 1]);
    await optimizer.step([upload(engine, [1, -1], [2])], 1);
    // the first step of Adam moves by the rate against the sign
    const [a, b] = await engine.read(w);
    expect(a).toBeCloseTo(0.9, 6);
    expect(b).toBeCloseTo(2.1, 6);
  });

  it("scales gradients down to the norm wanted", async () => {
    const engine = createReferenceEngine();
    const stepped = async (clipNorm?: number) => {
      const w = upload(engine, [0, 0], [2]);
      const optimizer = new AdamW(engine, [{ name: "w", tensor: w, rate: 1 }], {
        beta1: 0,
        beta2: 0.999,
        epsilon: 1, // large, so that the size of the gradient shows
        clipNorm,
      });
      await optimizer.step([upload(engine, [30, 40], [2])], 1);
      return [...(await engine.read(w))];
    };
    const [a] = await stepped(5);
    expect(a).toBeCloseTo(-3 / 4, 6); // gradient 3: 3 / (sqrt(9) + 1)
    const [b] = await stepped();
    expect(b).toBeCloseTo(-30 / 31, 6);
  });

  it("lets through a few times the usual norm, and goes on from a saved mean", async () => {
    const engine = createReferenceEngine();
    const settings = { beta1: 0, beta2: 0, epsilon: 1, clipSpikes: 2 }; // a step of g / (|g| + 1): the size shows
    const start = () => new AdamW(engine, [{ name: "w", tensor: upload(engine, [0], [1]), rate: 1 }], settings);
    /** The gradients as they were let through. */
    const through = async (optimizer: AdamW, norms: number[]) => {
      const seen: number[] = [];
      const [{ tensor }] = optimizer.parameters;
      for (const norm of norms) {
        engine.write(tensor, Float32Array.of(0));
        await optimizer.step([upload(engine, [norm], [1])], 1);
        const [moved] = await engine.read(tensor);
        seen.push(Math.abs(moved) / (1 - Math.abs(moved)));
      }
      return seen;
    };
    // the mean is 1, then 1 + (2 - 1) / 32 after the spike, and no more than a spike less after what is small
    const mean = 1 + 1 / 32;
    const expected = [1, 2, 2 * mean, 0.5];
    const whole = start();
    for (const [index, value] of (await through(whole, [1, 1000, 1e6, 0.5])).entries()) {
      expect(value).toBeCloseTo(expected[index], 5);
    }
    const first = start();
    await through(first, [1, 1000]);
    const second = start();
    second.restore(await first.save());
    const [spike] = await through(second, [1e6]);
    expect(spike).toBeCloseTo(2 * mean, 5);
    // gradients of zero leave no bound of zero
    const still = start();
    const [, later] = await through(still, [0, 3]);
    expect(later).toBeCloseTo(3, 5);
    const free = new AdamW(engine, [{ name: "w", tensor: upload(engine, [0], [1]), rate: 1 }], {
      ...settings,
      clipSpikes: undefined,
    });
    const [, , large] = await through(free, [0, 1, 7]);
    expect(large).toBeCloseTo(7, 4);
  });

  it("follows the schedule from the whole rate down", () => {
    const factors = (schedule: "cosine" | "linear" | "constant") =>
      [0, 1, 2, 4].map((step) => scheduleFactor(schedule, step, 4));
    expect(factors("constant")).toEqual([1, 1, 1, 1]);
    expect(factors("linear")).toEqual([1, 0.75, 0.5, 0]);
    const cosine = factors("cosine");
    for (const [index, factor] of [1, (1 + Math.SQRT1_2) / 2, 0.5, 0].entries())
      expect(cosine[index]).toBeCloseTo(factor, 12);
  });

  it("rises to the whole rate", () => {
    expect([0, 1, 9, 10].map((step) => warmUpFactor(step, 10))).toEqual([0.1, 0.2, 1, 1]);
    for (const warmUp of [0, 1]) expect([0, 1, 2].map((step) => warmUpFactor(step, warmUp))).toEqual([1, 1, 1]);
  });

  it("goes on from a saved state to the same values", async () => {
    const engine = createReferenceEngine();
    const start = () => upload(engine, [1, 2], [2]);
    const grads = [1, 2, 3, 4].map((step) => upload(engine, [Math.sin(step), Math.cos(step)], [2]));
    const whole = start();
    const one = new AdamW(engine, [{ name: "w", tensor: whole, rate: 0.1, decay: 0.1 }]);
    for (const grad of grads) await one.step([grad], 1);
    const first = start();
    const two = new AdamW(engine, [{ name: "w", tensor: first, rate: 0.1, decay: 0.1 }]);
    for (const grad of grads.slice(0, 2)) await two.step([grad], 1);
    const saved = await two.save();
    const second = engine.create([2]);
    const three = new AdamW(engine, [{ name: "w", tensor: second, rate: 0.1, decay: 0.1 }]);
    three.restore(saved);
    for (const grad of grads.slice(2)) await three.step([grad], 1);
    expect([...(await engine.read(second))]).toEqual([...(await engine.read(whole))]);
    expect(() => three.restore({ ...saved, values: {} })).toThrow(/does not fit w/);
  });
});
