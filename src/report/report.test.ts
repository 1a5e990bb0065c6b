import { describe, expect, it } from "vitest";
import {
  comparisonTable,
  formatBits,
  formatBytes,
  formatParameters,
  formatPerplexity,
  formatSeconds,
  formatShare,
  formatSmall,
  toMarkdown,
} from "./index.js";

describe("numbers for people", () => {
  it("writes each unit in one way", () => {
    expect([0, 999, 1000, 13_644_168, 999_600_000, 4.2e12].map(formatBytes)).toEqual([
      "0 B",
      "999 B",
      "1.00 kB",
      "13.6 MB",
      "1.00 GB",
      "4.20 TB",
    ]);
    expect([0.04, 59.94, 59.96, 125, 3599.6, 3725].map(formatSeconds)).toEqual([
      "0.0 s",
      "59.9 s",
      "1 min 00 s",
      "2 min 05 s",
      "1 h 00 min",
      "1 h 02 min",
    ]);
    expect(formatSeconds(Number.NaN)).toBe("-");
    expect([0, 0.0312, 0.00005, 12].map(formatSmall)).toEqual(["0", "0.0312", "5.00e-5", "12.0"]);
    expect([12, 39_600_000, 7e9].map(formatParameters)).toEqual(["12", "39.6 M", "7.00 B"]);
    expect(formatShare(0.9731)).toBe("97.3 %");
    expect(formatBits(2.0664)).toBe("2.066");
    expect([24.7341, 123_456].map(formatPerplexity)).toEqual(["24.73", "1.23e+5"]);
    expect(formatPerplexity(undefined)).toBe("-");
  });
});

describe("toMarkdown", () => {
  it("aligns columns and guards the bars", () => {
    const table = comparisonTable([{ name: "a|b", bitsPerWeight: 16, bytesOnDisk: 100, perplexity: 20 }]);
    expect(toMarkdown(table).split("\n")).toEqual([
      "| model | bits/weight | on disk | perplexity | KL (nats) | top-1 same | time |",
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
      "| a\\|b | 16.000 | 100 B | 20.00 | - | - | - |",
    ]);
  });
});
