import { expect, it } from "vitest";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { enableRelaxedSimd } from "../../src/node/engines.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { conformance, sameBits } from "./suite.js";

enableRelaxedSimd();
const make = (threads: number, reproducible: boolean) => () =>
  createWasmEngine({ threads, spawnWorker: nodeWorkers(), reproducible });

for (const [build, reproducible] of [
  ["plain", true],
  ["relaxed", false],
] as const) {
  it(`takes the ${build} build`, async () => {
    const engine = await make(2, reproducible)();
    expect([engine.name, engine.threads, engine.arithmetic]).toEqual([
      "wasm",
      2,
      reproducible ? "wasm" : "wasm-relaxed",
    ]);
    expect(engine.description).toMatch(reproducible ? /WebAssembly SIMD, 2 threads/ : /relaxed SIMD, 2 threads/);
    await engine.close();
  });
  for (const threads of [1, 2]) conformance(`wasm, ${build}, ${threads} threads`, make(threads, reproducible));
  for (const threads of [2, 3])
    sameBits(
      `wasm, ${build}: ${threads} threads give the bits of one`,
      make(1, reproducible),
      make(threads, reproducible),
    );
}

it("has one thread when nothing spawns workers", async () => {
  const engine = await createWasmEngine({ threads: 4 });
  expect(engine.threads).toBe(1);
  await engine.close();
});
