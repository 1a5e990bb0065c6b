import { afterAll, beforeAll } from "vitest";
import type { Engine } from "../src/engine/engine.js";
import { createReferenceEngine } from "../src/engine/reference/index.js";
import { createWasmEngine } from "../src/engine/wasm/engine.js";
import { nodeWorkers } from "../src/node/threads.js";
import type { Tensor } from "../src/tensor/index.js";

/** Wasm engines of 1, 2 and 3 threads, and the reference, for the tests of a file. Closed at its end. */
export function wasmEngines(): { engines: Engine[]; reference: Engine } {
  const engines: Engine[] = [];
  const reference = createReferenceEngine();
  beforeAll(async () => {
    for (const threads of [1, 2, 3]) engines.push(await createWasmEngine({ threads, spawnWorker: nodeWorkers() }));
  });
  afterAll(async () => {
    for (const engine of engines) await engine.close();
  });
  return { engines, reference };
}

/** Runs `body` in a scope and reads all tensors that it returns. */
export function onHost<R extends Record<string, Tensor>>(
  engine: Engine,
  body: () => R | Promise<R>,
): Promise<{ [Name in keyof R]: number[] }> {
  return engine.scope(async () => {
    const tensors = await body();
    const read = {} as { [Name in keyof R]: number[] };
    for (const name of Object.keys(tensors) as (keyof R)[]) read[name] = Array.from(await engine.read(tensors[name]));
    return read;
  });
}
