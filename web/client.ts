import type { Failure, FromWorker, RequestName, Requests, RunEvent, ToWorker } from "./protocol.js";

/** A request that the worker refused. */
export class RequestFailed extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
  }
}

export interface WorkerClient {
  ask<K extends RequestName>(type: K, input: Requests[K]["input"]): Promise<Requests[K]["output"]>;
  /** Stops the job at work, if there is one. */
  stop(): void;
}

/** Starts the worker. When it dies, as when memory runs out, every open request fails. */
export function startWorker(onEvent: (event: RunEvent) => void): WorkerClient {
  const worker = new Worker("worker.js", { type: "module" });
  const open = new Map<number, { resolve(output: unknown): void; reject(error: Error): void }>();
  let count = 0;
  let dead: RequestFailed | undefined;
  worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
    if (data.type === "event") {
      onEvent(data.event);
      return;
    }
    const request = open.get(data.id);
    open.delete(data.id);
    if (data.type === "done") request?.resolve(data.output);
    else request?.reject(new RequestFailed(data.failure));
  });
  worker.addEventListener("error", ({ message }) => {
    dead = new RequestFailed({
      kind: "internal",
      message: `the worker ended: ${message || "it could not be loaded, or memory ran out"}`,
      remedy: "reload the page; what a job had finished is kept where the browser allows it",
    });
    for (const { reject } of open.values()) reject(dead);
    open.clear();
  });
  const post = (message: ToWorker) => worker.postMessage(message);
  return {
    ask: (type, input) =>
      new Promise((resolve, reject) => {
        if (dead) {
          reject(dead);
          return;
        }
        const id = count++;
        open.set(id, { resolve: resolve as (output: unknown) => void, reject });
        post({ type, id, input } as ToWorker);
      }),
    stop: () => post({ type: "stop" }),
  };
}
