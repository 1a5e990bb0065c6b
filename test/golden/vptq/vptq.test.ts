import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { layerTensors } from "../../../src/checkpoint/layout.js";
import { openCheckpointModel } from "../../../src/checkpoint/open.js";
import { vptqLayout } from "../../../src/checkpoint/vptq.js";
import { vptqSettings } from "../../../src/checkpoint/vptq-config.js";
import type { JsonObject } from "../../../src/files/json.js";
import { recordBits } from "../../../src/quant/bits.js";
import { absorbOrder, dequantize } from "../../../src/quant/dequantize.js";
import { GOLDEN_CHECKPOINTS, goldenFolder, goldenJson, goldenTensors } from "./folder.js";

const sha256 = (values: Float32Array): string =>
  createHash("sha256")
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest("hex");

type Decoded = Record<string, Record<string, { sha256: string; first: number[]; last: number[] }>>;

describe.each(GOLDEN_CHECKPOINTS)("the checkpoint %s of the official code", (name) => {
  it("decodes to the vptq package's weights, bit for bit", async () => {
    const checkpoint = await openCheckpointModel(await goldenFolder(name));
    expect(checkpoint.format).toBe("vptq");
    const expected = (goldenJson("dequantized.json") as Decoded)[name];
    expect(checkpoint.layers.map((layer) => layer.name).sort()).toEqual(Object.keys(expected).sort());
    for (const [layer, { sha256: digest, first, last }] of Object.entries(expected)) {
      const weight = `${layer}.weight`;
      const shape = checkpoint.weights.shape(weight) ?? [];
      const values = await checkpoint.weights.read(weight, shape);
      expect(Array.from(values.subarray(0, 3)), layer).toEqual(first);
      expect(Array.from(values.subarray(-3)), layer).toEqual(last);
      expect(sha256(values), layer).toBe(digest);
    }
  });

  it("is written back byte for byte, and every bit of it is counted", async () => {
    const checkpoint = await openCheckpointModel(await goldenFolder(name));
    let bits = 0;
    for (const layer of checkpoint.layers) {
      const record = await checkpoint.record(layer.name);
      const { tensors } = vptqLayout.write(record);
      for (const tensor of tensors) {
        const stored = `${layer.key}.${tensor.name}`;
        expect(checkpoint.tensors.info(stored)).toMatchObject({ dtype: tensor.dtype, shape: tensor.shape });
        expect(Buffer.compare(await checkpoint.tensors.readRaw(stored), tensor.bytes()), stored).toBe(0);
      }
      expect(recordBits(record, "vptq").total).toBe(layer.bits);
      bits += layer.bits;
    }
    const written = checkpoint.tensors.names.filter((key) => key.includes("proj."));
    expect(bits).toBe(written.reduce((sum, key) => sum + 8 * (checkpoint.tensors.info(key)?.bytes ?? 0), 0));
    const weights = checkpoint.layers.reduce((sum, { shape }) => sum + shape.rows * shape.columns, 0);
    // as the makers of the checkpoints counted
    expect(bits / weights).toBeCloseTo(name === "v4k256-perm-norm" ? 2.2865 : 2.724, 4);
  });

  it("keeps its weights when the column order is absorbed", async () => {
    const checkpoint = await openCheckpointModel(await goldenFolder(name));
    for (const layer of checkpoint.layers.slice(0, 7)) {
      const record = await checkpoint.record(layer.name);
      if (record.kind !== "codebook") throw new Error("expected codebooks");
      const absorbed = absorbOrder(record);
      expect(record.columnOrder).toBeDefined();
      expect(absorbed.columnOrder).toBeUndefined();
      expect(sha256(dequantize(absorbed))).toBe(sha256(dequantize(record)));
    }
  });
});

describe("layers packed and decoded by the vptq package", async () => {
  const settings = goldenJson("layers.json") as Record<string, JsonObject>;
  const tensors = await goldenTensors("layers.safetensors");
  const { setting } = vptqSettings(
    { quantization_config: { config_for_layers: settings } },
    "layers.json",
    () => undefined,
  );
  const settingOf = (name: string) => setting(name) ?? expect.unreachable();

  it.each(Object.keys(settings))("%s: indices, weights and bytes are the same", async (name) => {
    const record = await vptqLayout.read(layerTensors(tensors, name), settingOf(name));
    if (record.kind !== "codebook") throw new Error("expected codebooks");
    expect(dequantize(record)).toEqual(await tensors.readF32(`expected.${name}.weight`));

    const groups = record.segments.slice(record.hasOutliers ? 1 : 0);
    for (const [stage, key] of ["main", "residual"].entries()) {
      const stored = `expected.${name}.${key}`;
      if (!tensors.info(stored)) continue;
      const expected = new Int32Array(new Uint8Array(await tensors.readRaw(stored)).buffer);
      expect(groups.flatMap(({ stages }) => [...stages[stage].indices])).toEqual([...expected]);
    }

    if (settings[name].is_indice_packed === false) return; // we write packed indices only
    const written = vptqLayout.write(record);
    expect(written.setting).toEqual(settings[name]);
    const fields = tensors.names.filter((key) => key.startsWith(`${name}.`));
    expect(written.tensors.map((tensor) => `${name}.${tensor.name}`).sort()).toEqual([...fields].sort());
    let bytes = 0;
    for (const tensor of written.tensors) {
      const field = `${name}.${tensor.name}`;
      expect(tensors.info(field)).toMatchObject({ dtype: tensor.dtype, shape: tensor.shape });
      expect(Buffer.compare(await tensors.readRaw(field), tensor.bytes()), field).toBe(0);
      bytes += tensor.bytes().length;
    }
    expect(recordBits(record, "vptq").total).toBe(8 * bytes);
  });
});

describe("layers as GPTQModel writes them", async () => {
  const cases = goldenJson("gptqmodel.json") as Record<string, { features: [number, number]; config: JsonObject }>;
  const tensors = await goldenTensors("gptqmodel.safetensors");

  it.each(Object.keys(cases))("%s: the weights are the same", async (name) => {
    const { features, config } = cases[name];
    const { setting } = vptqSettings({ quantization_config: config }, "config.json", () => features);
    const record = await vptqLayout.read(layerTensors(tensors, name), setting(name) ?? expect.unreachable());
    expect(dequantize(record)).toEqual(await tensors.readF32(`expected.${name}.weight`));
  });
});
