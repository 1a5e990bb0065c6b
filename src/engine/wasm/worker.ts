// The body of a worker thread, as text: it runs in Node and in browsers, without a file of its own. The spawner puts
// `receive(listener)` and `send(message)` in scope. Workers sleep on the control block and never go back to their event loop.

/** Layout of the control block, in 32-bit words. What threads contend for has cache lines of its own. */
export const CONTROL = {
  /** Counts jobs; workers wait for it to change. */
  generation: 0,
  /** OPEN while the job has units to give, plus the number of workers inside. */
  gate: 16,
  /** The next unit to give. */
  next: 32,
  kernel: 48,
  units: 49,
  chunk: 50,
  arguments: 51,
  scratch: 52,
  scratchBytes: 53,
  stop: 54,
  /** 0, or 1 + the index of the worker whose kernel failed; the message follows at `message`. */
  failed: 55,
  /** Length, then UTF-16 code units, one a word. */
  message: 64,
  messageLimit: 255,
  words: 320,
} as const;

/** The gate's flag: workers may enter. */
export const OPEN = 1 << 16;

/** How often a waiting thread looks before it sleeps. */
export const SPINS = 400;

/** What a worker is told at its start. */
export interface WorkerStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** Kernels by number. */
  kernels: readonly string[];
  /** Address of the control block. */
  control: number;
  /** 1 for the first worker: thread 0 is the caller. */
  thread: number;
}

/** What a worker says once. */
export type WorkerReply = { ready: true } | { failed: string };

export const WORKER_SOURCE = `
receive(({ module, memory, kernels, control, thread }) => {
  let table;
  try {
    const instance = new WebAssembly.Instance(module, { env: { memory } });
    table = kernels.map((name) => instance.exports[name]);
  } catch (error) {
    send({ failed: String(error) });
    return;
  }
  const words = new Int32Array(memory.buffer, control, ${CONTROL.words});
  let seen = Atomics.load(words, ${CONTROL.generation});
  send({ ready: true });
  for (;;) {
    let spins = ${SPINS};
    while (spins > 0 && Atomics.load(words, ${CONTROL.generation}) === seen) spins--;
    if (spins === 0) Atomics.wait(words, ${CONTROL.generation}, seen);
    seen = Atomics.load(words, ${CONTROL.generation});
    if (words[${CONTROL.stop}] !== 0) return;
    let gate = Atomics.load(words, ${CONTROL.gate});
    let inside = false;
    while ((gate & ${OPEN}) !== 0) {
      const found = Atomics.compareExchange(words, ${CONTROL.gate}, gate, gate + 1);
      if (found === gate) {
        inside = true;
        break;
      }
      gate = found;
    }
    if (!inside) continue;
    try {
      const kernel = table[words[${CONTROL.kernel}]];
      const units = words[${CONTROL.units}];
      const chunk = words[${CONTROL.chunk}];
      const scratch = (words[${CONTROL.scratch}] >>> 0) + thread * words[${CONTROL.scratchBytes}];
      for (;;) {
        const begin = Atomics.add(words, ${CONTROL.next}, chunk);
        if (begin >= units) break;
        kernel(begin, Math.min(begin + chunk, units), words[${CONTROL.arguments}], scratch);
      }
    } catch (error) {
      Atomics.store(words, ${CONTROL.next}, words[${CONTROL.units}]);
      if (Atomics.compareExchange(words, ${CONTROL.failed}, 0, thread) === 0) {
        const text = String(error).slice(0, ${CONTROL.messageLimit});
        words[${CONTROL.message}] = text.length;
        for (let i = 0; i < text.length; i++) words[${CONTROL.message} + 1 + i] = text.charCodeAt(i);
      }
    }
    if (Atomics.sub(words, ${CONTROL.gate}, 1) === 1) Atomics.notify(words, ${CONTROL.gate});
  }
});
`;

/** A running worker, as its spawner hands it over. */
export interface WorkerHandle {
  send(message: WorkerStart): void;
  onMessage(listener: (reply: WorkerReply) => void): void;
  /** The worker died: an error that it did not catch, or its end without being asked. */
  onFailure(listener: (reason: string) => void): void;
  /** From now on the worker alone keeps no process alive. */
  release(): void;
  terminate(): Promise<void>;
}

/** Starts a worker that runs `source` with `receive` and `send` in scope. */
export type WorkerSpawner = (source: string) => WorkerHandle;

/** Web Workers, for a page with cross-origin isolation (without it memory cannot be shared: use one thread). */
export function webWorkers(): WorkerSpawner {
  return (source) => {
    const prelude =
      "const receive = (listener) => addEventListener('message', (event) => listener(event.data), { once: true });" +
      "const send = (message) => postMessage(message);\n";
    const url = URL.createObjectURL(new Blob([prelude + source], { type: "text/javascript" }));
    const worker = new Worker(url);
    return {
      send: (message) => worker.postMessage(message),
      onMessage: (listener) => worker.addEventListener("message", (event) => listener(event.data)),
      onFailure: (listener) => worker.addEventListener("error", (event) => listener(event.message)),
      release: () => URL.revokeObjectURL(url),
      terminate: async () => worker.terminate(),
    };
  };
}
