import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CONFIG } from "../../test/checkpoints.js";
import {
  affineRecords,
  codebookRecords,
  fingerprint,
  packableRecords,
  publishedRecords,
  records,
} from "../../test/records.js";
import { BitwrightError } from "../errors.js";
import type { JsonObject } from "../files/json.js";
import { memoryOutput, memorySource } from "../files/memory.js";
import { openSafetensors } from "../files/safetensors.js";
import { writeSafetensors } from "../files/safetensors-writer.js";
import type { TensorReader } from "../files/tensors.js";
import { parseModelConfig } from "../model/config.js";
import { checkFinite } from "../model/weights.js";
import { type RecordLayout, recordBits, recordShape } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { CodebookRecord, QuantizedRecord } from "../quant/record.js";
import { bitwrightLayout, bitwrightSetting } from "./bitwright.js";
import { type CompressedSetting, intQuantizedLayout, packQuantizedLayout } from "./compressed-tensors.js";
import { compressedConfig, compressedSettings } from "./compressed-tensors-config.js";
import { writerOf } from "./formats.js";
import { type GptqSetting, gptqLayouts } from "./gptq.js";
import { gptqConfig, gptqSettings } from "./gptq-config.js";
import { type LayerTensor, layerTensors } from "./layout.js";
import { vptqLayout } from "./vptq.js";
import { vptqSettings } from "./vptq-config.js";

/** The bytes of a file with one layer "l". */
async function fileOf(tensors: LayerTensor[]): Promise<Uint8Array> {
  const output = memoryOutput();
  await writeSafetensors(
    await output.create("m"),
    tensors.map(({ name, dtype, shape, bytes }) => ({ name: `l.${name}`, dtype, shape, read: async () => bytes() })),
  );
  await output.commit();
  return output.files.get("m") ?? expect.unreachable();
}

const open = (bytes: Uint8Array): Promise<TensorReader> => openSafetensors(memorySource("m", bytes));

function vptqSettingOf(setting: unknown) {
  const config = { quantization_config: { config_for_layers: { l: setting } } };
  return vptqSettings(config, "config.json", () => undefined).setting("l") ?? expect.unreachable();
}

type Kind = RecordLayout;

function gptqSettingOf(format: "gptq" | "gptq_v2", setting: unknown, [rows, columns]: Features) {
  const written = [{ name: "l", setting: setting as GptqSetting & { order?: boolean } }];
  const config = JSON.parse(JSON.stringify(gptqConfig(format, written, []))) as JsonObject;
  return gptqSettings(config, "config.json").setting("l", rows, columns) ?? expect.unreachable();
}

type Features = [rows: number, columns: number];

/** What the configuration of a checkpoint with this one layer says of it. */
const settingsOf = {
  bitwright: (setting: unknown) => bitwrightSetting(setting, "l", "config.json"),
  vptq: vptqSettingOf,
  gptq: (setting: unknown, features: Features) => gptqSettingOf("gptq", setting, features),
  gptq_v2: (setting: unknown, features: Features) => gptqSettingOf("gptq_v2", setting, features),
  "compressed-tensors": (setting: unknown, features: Features) => compressedSettingOf(setting, features),
  "int-quantized": (setting: unknown, features: Features) => compressedSettingOf(setting, features),
};

function compressedSettingOf(setting: unknown, [rows, columns]: Features) {
  const written = [{ name: "l", setting: setting as CompressedSetting & { packed: boolean } }];
  const config = JSON.parse(JSON.stringify(compressedConfig(written, [], undefined, MODEL))) as JsonObject;
  const found = compressedSettings(config, MODEL, "config.json").setting("l", rows, columns);
  return found?.setting ?? expect.unreachable();
}

const MODEL = parseModelConfig(CONFIG);

async function readAs(
  layout: Kind,
  tensors: TensorReader,
  setting: unknown,
  features: Features,
): Promise<QuantizedRecord> {
  const fields = layerTensors(tensors, "l");
  switch (layout) {
    case "bitwright":
      return bitwrightLayout.read(fields, settingsOf.bitwright(setting));
    case "vptq":
      return vptqLayout.read(fields, settingsOf.vptq(setting));
    case "gptq":
    case "gptq_v2":
      return gptqLayouts[layout].read(fields, settingsOf[layout](setting, features));
    case "compressed-tensors":
      return packQuantizedLayout.read(fields, settingsOf[layout](setting, features));
    case "int-quantized":
      return intQuantizedLayout.read(fields, settingsOf[layout](setting, features));
    default:
      return layout satisfies never;
  }
}

/** What comes back from a file: through JSON and bytes, as from a disk. */
async function roundTrip(record: QuantizedRecord, layout: Kind): Promise<QuantizedRecord> {
  const { tensors, setting } = writerOf(layout).write(record);
  const bytes = await open(await fileOf(tensors));
  return readAs(layout, bytes, JSON.parse(JSON.stringify(setting)), [record.rows, record.columns]);
}

describe("layouts", () => {
  it("our own gives every record back, and its bits are those counted", async () => {
    await fc.assert(
      fc.asyncProperty(records, async (record) => {
        const { tensors } = bitwrightLayout.write(record);
        expect(recordBits(record).total).toBe(tensors.reduce((sum, { bytes }) => sum + 8 * bytes().length, 0));
        expect(fingerprint(await roundTrip(record, "bitwright"))).toEqual(fingerprint(record));
      }),
      { numRuns: 150 },
    );
  });

  it("the published one gives every record back that it accepts, and its bits are those counted", async () => {
    await fc.assert(
      fc.asyncProperty(publishedRecords, async (record) => {
        expect(vptqLayout.accepts(recordShape(record))).toBe(true);
        const { tensors } = vptqLayout.write(record);
        expect(recordBits(record, "vptq").total).toBe(tensors.reduce((sum, { bytes }) => sum + 8 * bytes().length, 0));
        expect(fingerprint(await roundTrip(record, "vptq"))).toEqual(fingerprint(record));
      }),
      { numRuns: 150 },
    );
  });

  it.each(["gptq", "gptq_v2", "compressed-tensors", "int-quantized"] as const)(
    "%s gives every record back that it accepts, and its bits are those counted",
    async (layout) => {
      let accepted = 0;
      await fc.assert(
        fc.asyncProperty(packableRecords, async (record) => {
          const { accepts, write } = writerOf(layout);
          const answer = accepts(recordShape(record));
          if (answer !== true) {
            expect(answer.reason.length).toBeGreaterThan(10);
            expect(() => write(record)).toThrow(BitwrightError);
            return;
          }
          accepted++;
          const { tensors } = write(record);
          expect(recordBits(record, layout).total).toBe(
            tensors.reduce((sum, { bytes }) => sum + 8 * bytes().length, 0),
          );
          const back = await roundTrip(record, layout);
          expect(dequantize(back)).toEqual(dequantize(record));
          // GPTQ writes scales as f16 where that is exact
          expect(fingerprint({ ...back, storage: record.storage })).toEqual(fingerprint(record));
        }),
        { numRuns: 100 },
      );
      expect(accepted).toBeGreaterThan(20);
    },
  );

  it("the published one says why it refuses, or keeps the weights", async () => {
    await fc.assert(
      fc.asyncProperty(codebookRecords, async (record) => {
        const accepted = vptqLayout.accepts(recordShape(record));
        if (accepted === true) {
          // a scale without a bias gets a bias of zeros; 0 + -0 may change the sign of a zero
          const back = dequantize(await roundTrip(record, "vptq"));
          expect(back.map((value) => value + 0)).toEqual(dequantize(record).map((value) => value + 0));
        } else {
          expect(accepted.reason.length).toBeGreaterThan(10);
          expect(() => vptqLayout.write(record)).toThrow(BitwrightError);
        }
      }),
      { numRuns: 100 },
    );
  });

  const base = (): CodebookRecord => ({
    kind: "codebook",
    storage: "f16",
    rows: 4,
    columns: 2,
    hasOutliers: false,
    segments: [{ begin: 0, end: 2, vectorLength: 2, stages: [stage(4)] }],
  });
  const stage = (codewords: number) => ({
    codewords,
    indices: new Uint16Array(4),
    centroids: new Float32Array(2 * codewords),
  });
  const half = (begin: number, stages = [stage(4)]) => ({ begin, end: begin + 1, vectorLength: 2, stages });
  it.each<[string, Partial<CodebookRecord>, RegExp]>([
    ["row scales", { rowScale: new Float32Array(4) }, /no scales of rows/],
    [
      "two residuals",
      { segments: [{ ...base().segments[0], stages: [stage(4), stage(4), stage(4)] }] },
      /one residual/,
    ],
    ["a larger residual", { segments: [{ ...base().segments[0], stages: [stage(2), stage(4)] }] }, /not be larger/],
    ["other sizes", { segments: [{ ...base().segments[0], stages: [stage(3)] }] }, /powers of two/],
    ["unequal groups", { segments: [half(0), half(1, [stage(8)])] }, /all alike/],
    [
      "outliers of two stages",
      { hasOutliers: true, segments: [half(0, [stage(4), stage(2)]), half(1)] },
      /outliers have one/,
    ],
    ["nothing but outliers", { hasOutliers: true }, /beside the outliers/],
  ])("the published one refuses %s", (_what, part, reason) => {
    expect(vptqLayout.accepts(recordShape({ ...base(), ...part }))).toMatchObject({
      reason: expect.stringMatching(reason) as string,
    });
  });

  it("neither loses a number without a word", () => {
    const record = base();
    record.segments[0].stages[0].centroids[0] = 1 + 2 ** -20; // not exact in f16
    const bytes = (layout: Pick<typeof vptqLayout, "write">) =>
      layout.write(record).tensors.map((tensor) => tensor.bytes());
    expect(() => bytes(vptqLayout)).toThrow(/centroids.weight: a value is not exact in f16/);
    expect(() => bytes(bitwrightLayout)).toThrow(/codebook.0.0: a value is not exact in f16/);
  });

  it("a bias keeps its own precision", async () => {
    const record = { ...base(), bias: Float32Array.of(1 + 2 ** -20, 2 ** -100, 1e30, 0) };
    for (const layout of ["vptq", "bitwright"] as const) {
      const back = await roundTrip(record, layout);
      expect(back.bias).toEqual(record.bias);
      expect(back.storage).toBe("f16");
    }
  });
});

describe("hostile layers", () => {
  const change = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) });
  const odd = fc.constantFrom<unknown>(null, -1, 0, 1, 3, 1e9, 1.5, "x", [], {}, [1, 2], [-1, 0], true, 65536, 2 ** 31);

  /** Replaces one value somewhere in a setting. */
  function mutate(setting: unknown, path: number, value: unknown): unknown {
    const copy = structuredClone(setting) as Record<string, unknown>;
    const slots: [Record<string, unknown>, string][] = [];
    const walk = (node: Record<string, unknown>) => {
      for (const key of Object.keys(node)) {
        slots.push([node, key]);
        if (node[key] !== null && typeof node[key] === "object") walk(node[key] as Record<string, unknown>);
      }
    };
    walk(copy);
    const [node, key] = slots[path % slots.length];
    node[key] = value;
    return copy;
  }

  const KINDS = ["bitwright", "vptq", "gptq", "gptq_v2", "compressed-tensors", "int-quantized"] as const;
  it.each(KINDS)("%s: typed errors only, whatever is changed", async (layout) => {
    const packable = packableRecords.filter((record) => writerOf(layout).accepts(recordShape(record)) === true);
    const own = layout === "vptq" ? publishedRecords : fc.oneof(affineRecords, codebookRecords);
    const source: fc.Arbitrary<QuantizedRecord> = layout === "vptq" || layout === "bitwright" ? own : packable;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        source,
        fc.array(change, { maxLength: 3 }),
        fc.option(fc.record({ path: fc.nat(200), value: odd })),
        fc.option(fc.nat(20)),
        async (record, changes, setting, dropped) => {
          const written = writerOf(layout).write(record);
          const tensors = written.tensors.filter((_, index) => index !== dropped);
          const bytes = await fileOf(tensors);
          for (const { at, to } of changes) bytes[at % bytes.length] = to;
          const asked = setting ? mutate(written.setting, setting.path, setting.value) : written.setting;
          try {
            const back = await readAs(layout, await open(bytes), asked, [record.rows, record.columns]);
            const weights = dequantize(back);
            expect(weights.length).toBe(back.rows * back.columns);
            checkFinite("weights", weights, [back.rows, back.columns]); // as when a model's weights are read
          } catch (error) {
            expect(error).toBeInstanceOf(BitwrightError);
            refused++;
          }
        },
      ),
      { numRuns: 500 },
    );
    expect(refused).toBeGreaterThan(50); // the changes reach the checks
  });
});
