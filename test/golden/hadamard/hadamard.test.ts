import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import { collect } from "../../conformance/case.js";
import { expectClose } from "../../conformance/compare.js";
import { GOLDEN } from "../../tolerances.js";

interface Case {
  shape: number[];
  x: number[];
  y: number[];
}

const cases: Case[] = JSON.parse(readFileSync(new URL("hadamard.json", import.meta.url), "utf8"));

it("the reference agrees with scipy on the order of the Hadamard matrix and its size", async () => {
  expect(cases.map(({ shape }) => shape[1])).toEqual([1, 2, 8, 64, 512]);
  const engine = createReferenceEngine();
  for (const { shape, x, y } of cases) {
    const [output] = await collect(engine, engine.hadamard(engine.upload(Float32Array.from(x), shape, "f32")));
    expectClose(output, { path: "result", dtype: "f32", shape, data: y }, GOLDEN, `[${shape}]`);
  }
  await engine.close();
});
