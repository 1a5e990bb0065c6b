import { describe, expect, it } from "vitest";
import { readInOrder } from "./read-in-order.js";

describe("reading in order", () => {
  it("reads the next ones before they are asked for, each once", async () => {
    const begun: string[] = [];
    const read = readInOrder(["a", "b", "c", "d"], async (name) => {
      begun.push(name);
      return name.toUpperCase();
    });
    expect(begun).toEqual([]);
    expect(await read("a")).toBe("A");
    expect(begun).toEqual(["a", "b", "c"]);
    expect([await read("a"), await read("b"), await read("c"), await read("d")]).toEqual(["A", "B", "C", "D"]);
    expect(begun).toEqual(["a", "b", "c", "d"]);
    expect(await read("a")).toBe("A"); // forgotten meanwhile
    expect(begun.slice(4)).toEqual(["a", "b", "c"]);
    expect(await read("elsewhere")).toBe("ELSEWHERE");
  });

  it("tells of a failure when what failed is asked for", async () => {
    const read = readInOrder(["a", "b"], async (name) => {
      if (name === "b") throw new Error("b is gone");
      return name;
    });
    expect(await read("a")).toBe("a");
    await new Promise((resolve) => setTimeout(resolve));
    await expect(read("b")).rejects.toThrow("b is gone");
  });
});
