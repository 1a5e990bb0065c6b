import "./zod.js";
import { failureOf } from "./failure.js";
import type { FromWorker, RequestName, Requests, ToWorker } from "./protocol.js";
import { runJob } from "./run-job.js";
import { Session } from "./session.js";

// The worker of the page: everything that takes time. Requests are answered one after the other; "stop" reaches the one at work.

const session = new Session();
const say = (message: FromWorker): void => postMessage(message);
let stop = new AbortController();
let turn: Promise<void> = Promise.resolve();

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "stop") {
    stop.abort();
    return;
  }
  if (data.type === "run") stop = new AbortController(); // now: a stop may come before its turn
  turn = turn.then(async () => {
    try {
      say({ type: "done", id: data.id, output: await answer(data) });
    } catch (error) {
      say({ type: "failed", id: data.id, failure: failureOf(error) });
    }
  });
});

async function answer(request: Exclude<ToWorker, { type: "stop" }>): Promise<Requests[RequestName]["output"]> {
  switch (request.type) {
    case "engine":
      return session.useEngine(request.input);
    case "open":
      return session.openModel(request.input);
    case "plan":
      return session.plan(request.input);
    case "run":
      return runJob(session, request.input, (event) => say({ type: "event", event }), stop.signal);
    case "forget":
      await (await session.journals()).remove((await session.prepare(request.input)).key);
      return undefined;
    default:
      return request satisfies never;
  }
}
