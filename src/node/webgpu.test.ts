import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testGpu } from "../../test/webgpu-adapter.js";

// Dawn takes the whole process down when its objects are collected at the wrong time, and holds Node back from its end while
// they are not: both show only in a process of its own.

const LIFE = `
import { createWebgpuEngine } from "./src/engine/webgpu/engine.js";
import { nodeGpu } from "./src/node/webgpu.js";

const collect = async () => {
  for (let turn = 0; turn < 5; turn++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
async function makeEngine() {
  const found = await nodeGpu();
  if ("reason" in found) throw new Error(found.reason);
  const made = await createWebgpuEngine(found);
  if ("reason" in made) throw new Error(made.reason);
  return made.engine;
}
for (let round = 0; round < 3; round++) {
  const engine = await makeEngine();
  await collect();
  const sum = await engine.scope(async () => {
    const a = engine.upload(Float32Array.of(1, 2), [2], "f32");
    const b = engine.add(a, a);
    await collect();
    return [...(await engine.read(b))].join();
  });
  console.log(sum);
  await engine.close();
  await collect();
}
if (process.argv[2] === "unused") await nodeGpu(), await collect();
if (process.argv[2] === "dropped")
  for (let round = 0; round < 5; round++) {
    await (await makeEngine()).close();
    for (let turn = 0; turn < 3; turn++) {
      globalThis.gc();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
if (process.argv[2] === "open") { await makeEngine(); process.exit(0); }
console.log("end");
`;

const found = await testGpu();
describe.skipIf("reason" in found)("Dawn in Node", () => {
  let folder: string;
  beforeAll(async () => {
    // within the project, where the package is found
    folder = mkdtempSync(join("node_modules", ".webgpu-test-"));
    const options = { bundle: true, platform: "node", format: "esm", write: false } as const;
    const { outputFiles } = await build({ stdin: { contents: LIFE, resolveDir: process.cwd() }, ...options });
    writeFileSync(join(folder, "life.mjs"), outputFiles[0].contents);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  for (const way of ["closed", "dropped", "unused", "open"])
    it(`lives and lets Node end: ${way}`, () => {
      const { status, signal, stdout, stderr } = spawnSync(
        process.execPath,
        ["--expose-gc", join(folder, "life.mjs"), way],
        { encoding: "utf8", timeout: 30_000 },
      );
      expect({ status, signal }, stderr).toEqual({ status: 0, signal: null });
      expect(stdout.trim().split("\n")).toEqual(["2,4", "2,4", "2,4", ...(way === "open" ? [] : ["end"])]);
    });
});
