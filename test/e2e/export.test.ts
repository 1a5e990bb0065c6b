import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { bitwright, json, MODEL, scratchFolder } from "./cli.js";

// `quantize --format` and `export`, as people run them.

const scratch = scratchFolder();
const own = join(scratch, "own");
const rtn = ["--method", "rtn", "--bits", "3", "--group", "64"];
const tensorsOf = (folder: string) => readFileSync(join(folder, "model.safetensors"));

beforeAll(async () => {
  await json("quantize", MODEL, "-o", own, ...rtn, "--format", "bitwright");
});

describe("export", () => {
  it.each(["gptq_v2", "compressed-tensors"])(
    "to %s is what quantize writes at once, and leads back",
    async (format) => {
      const [exported, direct, back] = ["exported", "direct", "back"].map((name) => join(scratch, `${format}-${name}`));
      const planned = await json("export", own, "-o", exported, "--format", format, "--dry-run");
      const document = await json("export", own, "-o", exported, "--format", format);
      expect(document).toMatchObject({ from: "bitwright", format, linears: 42, bitsPerWeight: planned.bitsPerWeight });
      const dry = await json("quantize", MODEL, "-o", direct, ...rtn, "--format", format, "--dry-run");
      expect(dry.bitsPerWeight).toBeCloseTo(document.bitsPerWeight as number, 10);
      const quantized = await json("quantize", MODEL, "-o", direct, ...rtn, "--format", format);
      expect(quantized).toMatchObject({ format });
      expect(quantized.bitsPerWeight).toBeCloseTo(document.bitsPerWeight as number, 10);
      const inspection = await json("inspect", exported);
      expect(inspection).toMatchObject({ format });
      expect((inspection.bits as { linears: number }).linears).toBeCloseTo(document.bitsPerWeight as number, 10);
      expect(tensorsOf(exported).equals(tensorsOf(direct))).toBe(true);
      await json("export", exported, "-o", back, "--format", "bitwright");
      expect(tensorsOf(back).equals(tensorsOf(own))).toBe(true);
    },
  );

  it("is refused with the reason and the remedy, and leaves nothing", async () => {
    const output = join(scratch, "refused");
    const refused = await bitwright("export", own, "-o", output, "--format", "gptq");
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/version 1, cannot hold model\.layers\.0.*zeros less one.*\n.*gptq_v2/);
    expect((await bitwright("export", MODEL, "-o", output, "--format", "gptq")).stderr).toMatch(/is not quantized/);
    expect((await bitwright("inspect", output)).stderr).toMatch(/there is no folder/);
  });

  it("is refused by quantize before the work", async () => {
    const output = join(scratch, "refused");
    const refused = async (...words: string[]) => (await bitwright("quantize", MODEL, "-o", output, ...words)).stderr;
    expect(await refused("--method", "rtn", "--bits", "6", "--format", "gptq_v2")).toMatch(
      /no codes of 6 bits\n.*--bits 2, 3, 4, 8/,
    );
    expect(await refused(...rtn, "--activations", "8", "--format", "gptq_v2")).toMatch(/--activations.*weights only/);
    expect(await refused("--format", "compressed-tensors")).toMatch(/no codebooks/); // VPTQ is the default method
  });
});
