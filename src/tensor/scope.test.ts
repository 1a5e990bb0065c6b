import { beforeEach, describe, expect, it } from "vitest";
import { ScopeStack } from "./scope.js";
import { Tensor } from "./tensor.js";

describe("ScopeStack", () => {
  let stack: ScopeStack;
  let live: number;
  beforeEach(() => {
    stack = new ScopeStack();
    live = 0;
  });
  const make = () => {
    live++;
    return stack.track(new Tensor({ bytes: 4, references: 0, free: () => live-- }, 0, "f32", [1]));
  };

  it("leaves tensors alone where there is no scope", () => {
    const tensor = make();
    stack.run(() => make());
    expect(tensor.disposed).toBe(false);
  });

  it("disposes what is not returned", () => {
    const kept = stack.run(() => {
      make();
      return make();
    });
    expect(live).toBe(1);
    expect(kept.disposed).toBe(false);
  });

  it("finds what is returned in objects, arrays and maps, but not in instances of classes", () => {
    class Holder {
      constructor(readonly tensor: Tensor) {}
    }
    const result = stack.run(() => ({
      list: [make(), [make()]],
      map: new Map([["a", { deep: make() }]]),
      data: new Float32Array(2),
      none: undefined,
      nothing: null,
      holder: new Holder(make()),
    }));
    expect(live).toBe(3);
    expect(result.holder.tensor.disposed).toBe(true);
    expect(result.map.get("a")?.deep.disposed).toBe(false);
  });

  it("hands what is returned to the scope around it", () => {
    stack.run(() => {
      const inner = stack.run(() => [make(), make()]);
      expect(live).toBe(2);
      return inner[0];
    });
    expect(live).toBe(1);
  });

  it("does not claim what the scope around it made", () => {
    stack.run(() => {
      const outer = make();
      expect(stack.run(() => outer)).toBe(outer);
      stack.run(() => {
        make();
      });
      expect(outer.disposed).toBe(false);
      expect(live).toBe(1);
    });
    expect(live).toBe(0);
  });

  it("keeps a tensor out of all scopes", () => {
    let kept: Tensor | undefined;
    stack.run(() => {
      const outer = make();
      stack.run(() => {
        kept = stack.keep(outer);
        stack.keep(make());
      });
    });
    expect(live).toBe(2);
    expect(kept?.disposed).toBe(false);
  });

  it("accepts tensors that were disposed by hand", () => {
    stack.run(() => {
      make().dispose();
      expect(live).toBe(0);
    });
    expect(live).toBe(0);
  });

  it("disposes everything when the body throws, and lets the error through", () => {
    expect(() =>
      stack.run(() => {
        make();
        stack.run(() => {
          make();
          throw new Error("on purpose");
        });
      }),
    ).toThrow("on purpose");
    expect(live).toBe(0);
    stack.run(() => make());
    expect(live).toBe(1); // there is no scope left that could claim it
  });

  it("closes an asynchronous body when it settles", async () => {
    const result = await stack.run(async () => {
      make();
      await Promise.resolve();
      make();
      const inner = await stack.run(async () => {
        make();
        await Promise.resolve();
        return make();
      });
      expect(live).toBe(3);
      return [inner];
    });
    expect(live).toBe(1);
    expect(result[0].disposed).toBe(false);
  });

  it("closes an asynchronous body that rejects", async () => {
    const failing = stack.run(async () => {
      make();
      await Promise.resolve();
      make();
      throw new Error("on purpose");
    });
    await expect(failing).rejects.toThrow("on purpose");
    expect(live).toBe(0);
  });

  it("refuses asynchronous scopes that overlap", async () => {
    let finish = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const first = stack.run(async () => {
      await gate;
    });
    const second = stack.run(async () => {
      await gate;
      await gate;
      await gate;
    });
    const both = Promise.allSettled([first, second]);
    finish();
    for (const outcome of await both)
      expect(outcome).toMatchObject({ status: "rejected", reason: { message: expect.stringContaining("overlapped") } });
  });
});
