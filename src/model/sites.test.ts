import { describe, expect, it } from "vitest";
import { fixtureConfig } from "../../test/golden/families/fixtures.js";
import { attentionRows, transformSites } from "./sites.js";

// That folding at these sites changes nothing is tested where it is done, in quant/omniquant/transform.test.ts.

describe("transformSites", () => {
  const separate = ["query", "key", "value"];

  it("has all five in a gated model, with shifts where biases take them up", () => {
    expect(transformSites(fixtureConfig("llama-mha"))).toEqual([
      { kind: "norm", norm: "attentionNorm", consumers: separate, shift: false },
      { kind: "value", shift: false },
      { kind: "queryKey", rotary: 8 },
      { kind: "norm", norm: "mlpNorm", consumers: ["gate", "up"], shift: false },
      { kind: "mlp", from: "up", to: "down" },
    ]);
    expect(transformSites(fixtureConfig("llama-linear-bias"))[1]).toEqual({ kind: "value", shift: true });
    expect(transformSites(fixtureConfig("qwen2-full"))[1]).toEqual({ kind: "value", shift: false });
  });

  it("leaves query and key alone where they are normed", () => {
    expect(transformSites(fixtureConfig("qwen3")).map(({ kind }) => kind)).toEqual(["norm", "value", "norm", "mlp"]);
  });

  it("ties nothing in OPT, and skips norms whose output is the stream or that have no weights", () => {
    expect(transformSites(fixtureConfig("opt-pre-norm"))).toEqual([
      { kind: "norm", norm: "attentionNorm", consumers: separate, shift: true },
      { kind: "value", shift: true },
      { kind: "queryKey", rotary: 0 },
      { kind: "norm", norm: "mlpNorm", consumers: ["up"], shift: true },
      { kind: "mlp", from: "up", to: "down" },
    ]);
    const kinds = (fixture: string) => transformSites(fixtureConfig(fixture)).map(({ kind }) => kind);
    expect(kinds("opt-post-norm-projected-unprefixed")).toEqual(["value", "queryKey", "mlp"]);
    expect(kinds("opt-plain-norms-untied-gelu")).toEqual(["value", "queryKey"]);
  });

  it("counts every reader of a norm in Falcon, and nothing passes through GELU", () => {
    const one = { kind: "norm", norm: "attentionNorm", consumers: ["queryKeyValue", "up"], shift: false };
    const rest = [
      { kind: "value", shift: false },
      { kind: "queryKey", rotary: 8 },
    ];
    expect(transformSites(fixtureConfig("falcon-7b"))).toEqual([one, ...rest]);
    expect(transformSites(fixtureConfig("falcon-40b-unprefixed"))).toEqual([
      { ...one, consumers: ["queryKeyValue"] },
      ...rest,
      { kind: "norm", norm: "mlpNorm", consumers: ["up"], shift: false },
    ]);
    expect(transformSites(fixtureConfig("falcon-rw"))).toEqual([
      { ...one, consumers: ["queryKeyValue"], shift: true },
      { kind: "value", shift: true },
      { kind: "queryKey", rotary: 0 },
      { kind: "norm", norm: "mlpNorm", consumers: ["up"], shift: true },
    ]);
  });
});

describe("attentionRows", () => {
  const heads = (rows: Int32Array, size: number) =>
    [...rows].filter((_, at) => at % size === 0).map((row) => row / size);

  it("numbers the rows of separate linears", () => {
    const { query, key, value, fused } = attentionRows(fixtureConfig("qwen3"));
    expect(fused).toBe(false);
    expect([...query]).toEqual(Array.from({ length: 64 }, (_, row) => row));
    expect([...key]).toEqual(Array.from({ length: 32 }, (_, row) => row));
    expect(value).toEqual(key);
  });

  it("finds the heads in a fused linear, each row once", () => {
    const grouped = attentionRows(fixtureConfig("falcon-40b-unprefixed")); // 8 queries, 2 groups
    expect(grouped.fused).toBe(true);
    expect(heads(grouped.query, 8)).toEqual([0, 1, 2, 3, 6, 7, 8, 9]);
    expect(heads(grouped.key, 8)).toEqual([4, 10]);
    expect(heads(grouped.value, 8)).toEqual([5, 11]);
    const single = attentionRows(fixtureConfig("falcon-7b"));
    expect([heads(single.query, 8), heads(single.key, 8), heads(single.value, 8)]).toEqual([
      [0, 1, 2, 3, 4, 5],
      [6],
      [7],
    ]);
    const interleaved = attentionRows(fixtureConfig("falcon-rw"));
    expect(heads(interleaved.key, 8)).toEqual([1, 4, 7, 10, 13, 16, 19, 22]);
    for (const { query, key, value } of [grouped, single, interleaved]) {
      const all = [...query, ...key, ...value].sort((a, b) => a - b);
      expect(all).toEqual(all.map((_, row) => row));
    }
  });
});
