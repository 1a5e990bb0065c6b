import { describe, expect, it } from "vitest";
import { Progress } from "./progress.js";

describe("Progress", () => {
  it("knows the time left at a steady speed", () => {
    let clock = 100;
    const progress = new Progress(1000, () => clock);
    for (let i = 0; i < 50; i++) {
      clock += 1;
      progress.add(10);
    }
    expect(progress.fraction).toBeCloseTo(0.5);
    expect(progress.elapsedSeconds).toBeCloseTo(50);
    expect(progress.remainingSeconds).toBeCloseTo(50);
  });

  it("leans towards the recent speed", () => {
    let clock = 0;
    const progress = new Progress(1000, () => clock);
    for (let i = 0; i < 100; i++) {
      clock += i < 50 ? 1 : 4;
      progress.add(5);
    }
    const overall = 250 / 1;
    expect(progress.remainingSeconds).toBeGreaterThan(overall);
    expect(progress.remainingSeconds).toBeLessThan(400);
  });
});
