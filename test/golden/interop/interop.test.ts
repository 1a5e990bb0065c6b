import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type CompressedSetting,
  intQuantizedLayout,
  packQuantizedLayout,
} from "../../../src/checkpoint/compressed-tensors.js";
import { exportCheckpoint } from "../../../src/checkpoint/export.js";
import { type GptqSetting, gptqLayouts } from "../../../src/checkpoint/gptq.js";
import type { LayerTensors, Layout } from "../../../src/checkpoint/layout.js";
import { openCheckpointModel } from "../../../src/checkpoint/open.js";
import type { Engine } from "../../../src/engine/engine.js";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import type { Folder } from "../../../src/files/folder.js";
import { memoryFolder, memoryOutput } from "../../../src/files/memory.js";
import type { TensorReader } from "../../../src/files/tensors.js";
import type { CheckpointFormat } from "../../../src/quant/bits.js";
import { type RecordLayout, recordBits } from "../../../src/quant/bits.js";
import { dequantize } from "../../../src/quant/dequantize.js";
import { openModel } from "../../../src/runtime/model.js";
import { fingerprint } from "../../records.js";
import { FAMILY_LOGITS } from "../../tolerances.js";
import { CASES, givenRecord, MODELS, modelFolder, modelLogits, openPacked, type PackedCase } from "./fixtures.js";

const layerOf = (packed: TensorReader, name: string): LayerTensors => ({
  layer: name,
  info: (field) => packed.info(`${name}/${field}`),
  read: (field) => packed.readRaw(`${name}/${field}`),
});

function layoutOf({ layout }: PackedCase): Layout<GptqSetting & CompressedSetting> {
  if (layout === "gptq" || layout === "gptq_v2") return gptqLayouts[layout];
  return layout === "int-quantized" ? intQuantizedLayout : packQuantizedLayout;
}

describe.each(CASES)("what the other packers wrote: $name", (given) => {
  const { name, rows, columns, bits, group, symmetric } = given;
  const layout = layoutOf(given);
  let packed: TensorReader;
  beforeAll(async () => {
    packed = await openPacked();
  });

  it("reads as what they were given, and decodes to the bits that they decode", async () => {
    const setting = { rows, columns, bits, group, symmetric, order: false };
    const record = await layout.read(layerOf(packed, name), setting);
    expect(fingerprint(record)).toEqual(fingerprint(await givenRecord(packed, given)));
    expect(Buffer.compare(Buffer.from(dequantize(record).buffer), await packed.readRaw(`${name}:weight`))).toBe(0);
  });

  it("is written byte for byte, and every bit of it is counted", async () => {
    const record = await givenRecord(packed, given);
    const { tensors } = layout.write(record);
    const theirs = packed.names.filter((tensor) => tensor.startsWith(`${name}/`));
    expect(tensors.map((tensor) => `${name}/${tensor.name}`).sort()).toEqual([...theirs].sort());
    for (const { name: field, dtype, shape, bytes } of tensors) {
      expect(packed.info(`${name}/${field}`), field).toMatchObject({ dtype, shape });
      expect(Buffer.compare(await packed.readRaw(`${name}/${field}`), bytes()), field).toBe(0);
    }
    const stored = theirs.reduce((sum, tensor) => sum + 8 * (packed.info(tensor)?.bytes ?? 0), 0);
    expect(recordBits(record, layout.name as RecordLayout).total).toBe(stored);
  });
});

describe.each(MODELS)("a model that the other packers wrote: %s", (name) => {
  let engine: Engine;
  beforeAll(() => {
    engine = createReferenceEngine();
  });
  afterAll(() => engine.close());

  /** The largest difference from their logits, as a share of the largest of those. */
  const distance = async (folder: Folder) => {
    const { tokens, shape, logits } = modelLogits(name);
    const model = await openModel(engine, folder);
    const got = await engine.scope(async () => engine.read(await model.decoder.logits(tokens)));
    await model.close();
    expect(got.length).toBe(shape[0] * shape[1] * shape[2]);
    const largest = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = got.reduce((most, value, i) => Math.max(most, Math.abs(value - logits[i])), 0);
    return worst / largest;
  };
  const expectLogits = async (folder: Folder) => expect(await distance(folder)).toBeLessThanOrEqual(FAMILY_LOGITS);

  it("gives the logits of transformers", async () => expectLogits(await modelFolder(name)));

  it.runIf(name.includes("a8"))("does not give them when a part of its activations is left alone", async () => {
    const source = await openCheckpointModel(await modelFolder(name));
    const activations = source.activations ?? expect.unreachable();
    const { input, ...cache } = activations;
    for (const part of [
      undefined,
      { input },
      cache,
      { ...activations, symmetric: true },
      { ...activations, input: 7 },
    ]) {
      const output = memoryOutput();
      await exportCheckpoint({ source: { ...source, activations: part }, output, format: "bitwright" });
      expect(await distance(memoryFolder("part", output.files)), JSON.stringify(part)).toBeGreaterThan(
        5 * FAMILY_LOGITS,
      );
    }
    await source.close();
  });

  const fitting: Record<string, CheckpointFormat[]> = {
    "gptq-v1-4-32-sym": ["gptq", "gptq_v2", "compressed-tensors", "bitwright"],
    "gptq-v2-3-32-asym-act-order": ["gptq_v2", "bitwright"],
    "compressed-3-32-asym-mixed": ["compressed-tensors", "bitwright"],
    "compressed-w8a8-kv6": ["compressed-tensors", "bitwright"],
  };
  it.each(fitting[name])("says the same in the format %s, and what is counted is what is stored", async (format) => {
    const source = await openCheckpointModel(await modelFolder(name));
    const output = memoryOutput();
    const { bitsPerWeight } = await exportCheckpoint({ source, output, format });
    const folder = memoryFolder("exported", output.files);
    const exported = await openCheckpointModel(folder);
    expect(exported.format).toBe(format);
    expect(exported.activations).toEqual(source.activations);
    let bits = 0;
    let weights = 0;
    for (const { name: layer, bits: stored, shape } of exported.layers) {
      expect(fingerprint(await exported.record(layer)), layer).toEqual(fingerprint(await source.record(layer)));
      bits += stored;
      weights += shape.rows * shape.columns;
    }
    expect(exported.layers.length).toBe(source.layers.length);
    // an act-order shows only in the data
    if (name !== "gptq-v2-3-32-asym-act-order") expect(bits / weights).toBeCloseTo(bitsPerWeight, 12);
    await exported.close();
    await source.close();
    await expectLogits(folder);
  });
});
