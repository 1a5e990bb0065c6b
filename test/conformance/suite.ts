import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import { createReferenceEngine } from "../../src/engine/reference/index.js";
import { type Case, runCase } from "./case.js";
import { affineCases } from "./cases/affine.js";
import { castCases } from "./cases/cast.js";
import { codebookCases } from "./cases/codebook.js";
import { decoderCases } from "./cases/decoder.js";
import { elementwiseCases } from "./cases/elementwise.js";
import { fusedGridCases } from "./cases/fusedgrid.js";
import { gradientCases } from "./cases/gradients.js";
import { gridCases } from "./cases/grid.js";
import { hadamardCases } from "./cases/hadamard.js";
import { magnitudeCases } from "./cases/magnitudes.js";
import { matrixCases } from "./cases/matrices.js";
import { sweepCases } from "./cases/sweeps.js";
import { expectOutputs } from "./compare.js";
import { memoryTests } from "./memory.js";
import { refusalTests } from "./refusals.js";

export type MakeEngine = () => Engine | Promise<Engine>;

/** Every case of every operation. */
export const ALL_CASES: readonly Case[] = [
  ...castCases,
  ...elementwiseCases,
  ...matrixCases,
  ...hadamardCases,
  ...decoderCases,
  ...codebookCases,
  ...sweepCases,
  ...affineCases,
  ...gridCases,
  ...fusedGridCases,
  ...gradientCases,
  ...magnitudeCases,
];

/** Calls `run` with the cases of one operation after the other. */
function byOperation(run: (operation: string, cases: Case[]) => void): void {
  const groups = new Map<string, Case[]>();
  for (const one of ALL_CASES) groups.set(one.operation, [...(groups.get(one.operation) ?? []), one]);
  for (const [operation, cases] of groups) run(operation, cases);
}

/**
 * Everything that an engine must do: each operation against the reference on regular, ragged and empty shapes, on tensors of
 * their own and on views into larger ones; inputs left alone, no byte left behind, misuse refused. A new engine is
 * `conformance("name", () => createNameEngine())`.
 */
export function conformance(name: string, makeEngine: MakeEngine): void {
  describe(`${name} conforms`, () => {
    let engine: Engine;
    const reference = createReferenceEngine();
    beforeAll(async () => {
      engine = await makeEngine();
    });
    afterAll(async () => {
      await engine?.close();
      await reference.close();
    });

    byOperation((operation, cases) => {
      describe(operation, () => {
        for (const one of cases) it(one.label, () => conform(engine, reference, one));
      });
    });
    describe("memory", () => memoryTests(() => engine));
    describe("refusals", () => refusalTests(() => engine));
  });
}

/** One case, dense and in views. */
async function conform(engine: Engine, reference: Engine, one: Case): Promise<void> {
  const expected = one.verify ? undefined : await runCase(reference, one, false);
  for (const asView of [false, true]) {
    const where = asView ? "in views" : "dense";
    const before = engine.liveBytes();
    const outputs = await runCase(engine, one, asView, (index, around, offset) => {
      const { data } = one.inputs[index];
      const changes = one.changes?.includes(index) ?? false;
      const guards: number[] = [];
      for (let i = 0; i < around.length; i++) {
        const own = i - offset;
        if (own < 0 || own >= data.length) guards.push(around[i]);
        else if (!changes && !Object.is(around[i], data[own]))
          expect.fail(`${where}: input ${index} was changed at element ${own}, from ${data[own]} to ${around[i]}`);
      }
      expect(new Set(guards).size, `${where}: input ${index} was written outside its view`).toBeLessThanOrEqual(1);
    });
    expect(engine.liveBytes() - before, `${where}: bytes left behind`).toBe(0);
    if (one.verify) await one.verify(outputs, one.inputs, reference);
    else expectOutputs(one, outputs, expected ?? [], where);
  }
}

/** Two engines that must agree to the last bit on every case: the same one on one thread and on several. */
export function sameBits(name: string, makeOne: MakeEngine, makeOther: MakeEngine): void {
  describe(name, () => {
    let [one, other]: (Engine | undefined)[] = [];
    beforeAll(async () => {
      one = await makeOne();
      other = await makeOther();
    });
    afterAll(async () => {
      await one?.close();
      await other?.close();
    });
    byOperation((operation, cases) => {
      it(operation, async () => {
        for (const { tolerance: _, ...exact } of cases) {
          const [mine, its] = [
            await runCase(one as Engine, exact, false),
            await runCase(other as Engine, exact, false),
          ];
          expectOutputs(exact, mine, its, exact.label);
        }
      });
    });
  });
}
