import { BitwrightError, firstLine } from "../../errors.js";

/** The innermost scope first is asked last; each takes the first error of its kind. */
const FILTERS = ["validation", "out-of-memory", "internal"] as const satisfies readonly GPUErrorFilter[];
type Kind = (typeof FILTERS)[number] | "lost";

const REMEDY = "another engine, for example --engine wasm; please report it if it comes again";

/**
 * WebGPU tells of errors later, and goes on with nonsense. All that a batch of commands did wrong is known when its scopes have
 * been asked: reads wait for that before they give data out, every other call throws what is known by then.
 */
export class Failures {
  private readonly answers = new Set<Promise<void>>();
  private first: BitwrightError | undefined;
  private lost: BitwrightError | undefined;
  private closing = false;

  constructor(private readonly device: GPUDevice) {
    device.lost.then(({ reason, message }) => {
      if (!this.closing) this.lost = describe("lost", message || reason);
    });
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.note("internal", event.error.message);
    });
    this.open();
  }

  /** Throws what has gone wrong so far: once, but for the loss of the device. */
  check(): void {
    if (this.lost) throw this.lost;
    const failure = this.first;
    this.first = undefined;
    if (failure) throw failure;
  }

  /** A batch was submitted: asks for its errors, and watches the next. */
  turn(): void {
    for (const kind of [...FILTERS].reverse()) this.ask(kind);
    this.open();
  }

  /** Waits for the answers to all batches so far; then as `check`. */
  async settle(): Promise<void> {
    await Promise.all(this.answers);
    this.check();
  }

  /** Runs `body` with errors of validation told under a title: the name of a kernel that does not compile. */
  titled<T>(title: string, body: () => T): T {
    this.device.pushErrorScope("validation");
    try {
      return body();
    } finally {
      this.ask("validation", title);
    }
  }

  /** The device will be destroyed: what it tells from now on is no news. */
  close(): void {
    this.closing = true;
  }

  private open(): void {
    for (const kind of FILTERS) this.device.pushErrorScope(kind);
  }

  private ask(kind: Kind, title?: string): void {
    const answer = this.device
      .popErrorScope()
      .then(
        (error) => error && this.note(kind, title ? `${title}: ${error.message}` : error.message),
        () => {}, // the device is lost, which is told elsewhere
      )
      .then(() => {
        this.answers.delete(answer);
      });
    this.answers.add(answer);
  }

  private note(kind: Kind, message: string): void {
    if (!this.closing) this.first ??= describe(kind, message);
  }
}

function describe(kind: Kind, detail: string): BitwrightError {
  if (kind === "out-of-memory")
    return new BitwrightError(
      "memory",
      `the WebGPU device has no room for another buffer (${firstLine(detail)})`,
      "fewer or shorter calibration windows, a smaller batch, or --engine wasm",
    );
  if (kind === "lost") return new BitwrightError("unsupported", `the WebGPU device was lost: ${detail}`, REMEDY);
  return new BitwrightError("unsupported", `the WebGPU device refused a command: ${detail}`, REMEDY);
}
