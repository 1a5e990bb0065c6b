import { Tensor } from "./tensor.js";

/**
 * Scoped lifetimes: tensors made inside a scope are disposed at its end, but for those in the value that it returns, which
 * move to the scope around it. One flow of control at a time uses a stack (an async scope must not overlap another).
 */
export class ScopeStack {
  private readonly scopes: Set<Tensor>[] = [];

  /** Engines call this for each tensor that they make. */
  track<T extends Tensor>(tensor: T): T {
    this.scopes.at(-1)?.add(tensor);
    return tensor;
  }

  /** Takes a tensor out of every scope; it lives until it is disposed by hand. */
  keep<T extends Tensor>(tensor: T): T {
    for (const scope of this.scopes) scope.delete(tensor);
    return tensor;
  }

  run<T>(body: () => T): T {
    const scope = new Set<Tensor>();
    this.scopes.push(scope);
    const close = (value: unknown) => {
      const top = this.scopes.pop();
      if (top !== scope) throw new Error("scopes were closed out of order: an async scope overlapped another");
      const outer = this.scopes.at(-1);
      const returned = new Set<Tensor>();
      collectTensors(value, returned);
      for (const tensor of scope) {
        if (returned.has(tensor)) outer?.add(tensor);
        else tensor.dispose();
      }
    };
    let value: T;
    try {
      value = body();
    } catch (error) {
      close(undefined);
      throw error;
    }
    if (value instanceof Promise) {
      return value.then(
        (settled) => {
          close(settled);
          return settled;
        },
        (error) => {
          close(undefined);
          throw error;
        },
      ) as T;
    }
    close(value);
    return value;
  }
}

function collectTensors(value: unknown, into: Set<Tensor>): void {
  if (value instanceof Tensor) into.add(value);
  else if (ArrayBuffer.isView(value)) return;
  else if (Array.isArray(value)) for (const item of value) collectTensors(item, into);
  else if (value instanceof Map) for (const item of value.values()) collectTensors(item, into);
  else if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype)
    for (const item of Object.values(value)) collectTensors(item, into);
}
