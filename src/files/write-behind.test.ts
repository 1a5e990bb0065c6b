import { describe, expect, it } from "vitest";
import { WriteBehind } from "./write-behind.js";

/** Writes that end when they are told to. */
function byHand() {
  const log: string[] = [];
  const ends: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const write = (name: string) => () =>
    new Promise<void>((resolve, reject) => {
      log.push(`begins ${name}`);
      ends.push({ resolve, reject });
    }).then(() => void log.push(`ends ${name}`));
  return { log, ends, write };
}
const turn = () => new Promise<void>((resolve) => setTimeout(resolve));

describe("writes behind the work", () => {
  it("come one after the other, and few wait", async () => {
    const { log, ends, write } = byHand();
    const behind = new WriteBehind();
    for (const name of ["a", "b", "c"]) await behind.add(write(name));
    let added = false;
    const fourth = behind.add(write("d")).then(() => {
      added = true;
    });
    await turn();
    expect(log).toEqual(["begins a"]);
    expect(added).toBe(false);
    for (let i = 0; i < 4; i++) {
      ends[i].resolve();
      await turn();
      expect(added).toBe(true);
    }
    await fourth;
    await behind.end();
    expect(log).toEqual(["a", "b", "c", "d"].flatMap((name) => [`begins ${name}`, `ends ${name}`]));
  });

  it("stop at the first failure, which is told at the end or before", async () => {
    const { log, ends, write } = byHand();
    const behind = new WriteBehind();
    for (const name of ["a", "b", "c"]) await behind.add(write(name));
    await turn();
    ends[0].reject(new Error("the disk is full"));
    await expect(behind.add(write("d"))).rejects.toThrow("the disk is full");
    await expect(behind.end()).rejects.toThrow("the disk is full");
    expect(log).toEqual(["begins a"]);
  });

  it("have nothing to wait for where there are none", async () => {
    await new WriteBehind().end();
  });
});
