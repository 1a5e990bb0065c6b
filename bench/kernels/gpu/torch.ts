import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** What gpu_torch.py shall time; `shape` as its function of that name takes it. */
export interface TorchRequest {
  operation: string;
  shape: number[];
  precision?: "f32" | "tf32" | "f16";
}

export interface Torch {
  /** Version and card. */
  description: string;
  /** Median milliseconds, or why there are none. */
  time(request: TorchRequest): Promise<{ milliseconds: number } | { error: string }>;
  close(): void;
}

/** PyTorch in a process of its own, which answers a line with a line; or why there is none. */
export async function openTorch(): Promise<Torch | { reason: string }> {
  const script = fileURLToPath(new URL("../bench/kernels/gpu_torch.py", import.meta.url)); // from build/
  const python = process.env.PYTHON ?? "python3";
  const child: ChildProcessWithoutNullStreams = spawn(python, [script]);
  let failure = "";
  child.stderr.on("data", (data) => {
    failure = `${failure}${data}`.slice(-2000);
  });
  child.stdin.on("error", () => {}); // the end of the output says it
  const failed = new Promise<void>((resolve) => {
    child.on("error", (error) => {
      failure = error.message;
      resolve();
    });
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<Record<string, unknown>> => {
    const line = await Promise.race([lines.next(), failed.then(() => ({ done: true, value: "" }) as const)]);
    if (!line.done) return JSON.parse(line.value);
    if (child.exitCode === null && child.pid !== undefined) await once(child, "close");
    return { error: failure.trim().split("\n").at(-1) || "it ended" };
  };
  const hello = await next();
  if (typeof hello.error === "string") return { reason: hello.error };
  return {
    description: `torch ${hello.torch}, ${hello.device}`,
    async time(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const { milliseconds, error } = await next();
      return typeof milliseconds === "number" ? { milliseconds } : { error: String(error) };
    },
    close() {
      child.stdin.end();
    },
  };
}
