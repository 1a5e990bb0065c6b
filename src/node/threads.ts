import { Worker } from "node:worker_threads";
import type { WorkerSpawner } from "../engine/wasm/worker.js";

/** Worker threads of Node for `createWasmEngine`. Once they are up they do not keep the process alive. */
export function nodeWorkers(): WorkerSpawner {
  return (source) => {
    const prelude =
      'const { parentPort } = require("node:worker_threads");' +
      'const receive = (listener) => parentPort.once("message", listener);' +
      "const send = (message) => parentPort.postMessage(message);\n";
    const worker = new Worker(prelude + source, { eval: true });
    let asked = false;
    return {
      send: (message) => worker.postMessage(message),
      onMessage: (listener) => worker.on("message", listener),
      onFailure: (listener) => {
        worker.on("error", (error) => listener(String(error)));
        worker.on("exit", (code) => {
          if (!asked) listener(`it ended with code ${code}`);
        });
      },
      release: () => worker.unref(),
      terminate: async () => {
        asked = true;
        await worker.terminate();
      },
    };
  };
}
