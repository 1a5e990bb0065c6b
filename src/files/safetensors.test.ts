import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BitwrightError } from "../errors.js";
import { memoryOutput, memorySource } from "./memory.js";
import { openSafetensors } from "./safetensors.js";
import { HEADER_LIMITS } from "./safetensors-header.js";
import { type OutgoingTensor, writeSafetensors } from "./safetensors-writer.js";
import type { StoredDType } from "./tensors.js";

/** A file of a header, as JSON or text, and bytes after it. */
function file(header: unknown, data = new Uint8Array(), claimed?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

const open = (bytes: Uint8Array) => openSafetensors(memorySource("m.safetensors", bytes));
const tensor = (dtype: string, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

/** The error that opening such a file gives. */
async function refusal(bytes: Uint8Array): Promise<BitwrightError> {
  const error = await open(bytes).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof BitwrightError) return error;
  throw new Error(`expected a refusal, got ${String(error)}`);
}

async function write(tensors: OutgoingTensor[]): Promise<Uint8Array> {
  const output = memoryOutput();
  await writeSafetensors(await output.create("m.safetensors"), tensors);
  await output.commit();
  return output.files.get("m.safetensors") ?? expect.unreachable();
}

const outgoing = (name: string, dtype: StoredDType, shape: number[], bytes: Uint8Array): OutgoingTensor => ({
  name,
  dtype,
  shape,
  read: async () => bytes,
});

describe("reading safetensors", () => {
  it("gives f32, f16 and bf16 exactly, NaN and infinity included", async () => {
    const data = new Uint8Array(20);
    new Float32Array(data.buffer, 0, 2).set([1.1, Number.NaN]);
    new Uint16Array(data.buffer, 8, 6).set([0x3c01, 0x7c00, 0x8001, 0x3f81, 0xff80, 0x0001]);
    const tensors = await open(
      file({ a: tensor("F32", [2], 0, 8), b: tensor("F16", [3], 8, 14), c: tensor("BF16", [3, 1], 14, 20) }, data),
    );
    expect([...(await tensors.readF32("a"))]).toEqual([Math.fround(1.1), Number.NaN]);
    expect([...(await tensors.readF32("b"))]).toEqual([1 + 2 ** -10, Number.POSITIVE_INFINITY, -(2 ** -24)]);
    expect([...(await tensors.readF32("c"))]).toEqual([1 + 2 ** -7, Number.NEGATIVE_INFINITY, 2 ** -133]);
    expect(tensors.info("c")).toMatchObject({ dtype: "bf16", shape: [3, 1], bytes: 6 });
    expect([...(await tensors.readRange("b", 2, 2))]).toEqual([0x00, 0x7c]);
  });

  it("reads nothing but the header before a tensor is asked for", async () => {
    const reads: [number, number][] = [];
    const bytes = file({ a: tensor("U8", [4], 0, 4), b: tensor("U8", [2], 4, 6) }, Uint8Array.of(1, 2, 3, 4, 5, 6));
    const source = memorySource("m", bytes);
    const headerBytes = bytes.length - 6 - 8;
    const tensors = await openSafetensors({
      ...source,
      read: (offset, length) => {
        reads.push([offset, length]);
        return source.read(offset, length);
      },
    });
    expect(reads).toEqual([
      [0, 8],
      [8, headerBytes],
    ]);
    expect([...(await tensors.readRaw("b"))]).toEqual([5, 6]);
    expect(reads.slice(2)).toEqual([[8 + headerBytes + 4, 2]]);
  });

  it("takes scalars, empty tensors, an empty file and padding after the header", async () => {
    const tensors = await open(
      file(`${JSON.stringify({ s: tensor("I64", [], 0, 8), e: tensor("F32", [0, 7], 8, 8) })}     `, new Uint8Array(8)),
    );
    expect(tensors.names).toEqual(["s", "e"]);
    expect((await tensors.readF32("e")).length).toBe(0);
    expect((await open(file({}))).names).toEqual([]);
  });

  it("names the types that it does not read as numbers", async () => {
    const tensors = await open(file({ a: tensor("F64", [1], 0, 8) }, new Uint8Array(8)));
    await expect(tensors.readF32("a")).rejects.toThrow(
      /a of m.safetensors is F64; numbers are read from F32, F16 and BF16/,
    );
    await expect(tensors.readF32("b")).rejects.toThrow(/tensor b is missing from m.safetensors/);
    await expect(tensors.readRange("a", 4, 8)).rejects.toThrow(/bytes 4 to 12 lie outside/);
  });

  const four = new Uint8Array(4);
  const cases: [what: string, bytes: Uint8Array, message: RegExp][] = [
    ["a file without a header", new Uint8Array(5), /has 5 bytes, too few for a safetensors file/],
    ["a truncated header", file("{}", undefined, 200n), /header claims 200 bytes, the file has 2 after/],
    [
      "an oversized header",
      file("{}", undefined, 2n ** 63n),
      /claims 9223372036854775808 bytes, more than the 100000000/,
    ],
    ["another kind of file", file("PK\u0003\u0004"), /does not begin with "\{"/],
    ["broken JSON", file('{"a":'), /header of m.safetensors is not JSON/],
    ["bytes that are not UTF-8", new Uint8Array([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff]), /not UTF-8/],
    ["deep nesting", file(`{"a":${"[".repeat(1000)}`), /nested deeper than any header/],
    ["truncated data", file({ a: tensor("F32", [2], 0, 8) }, four), /"a" ends at byte \d+, the file has \d+/],
    [
      "overlapping tensors",
      file({ a: tensor("U8", [4], 0, 4), b: tensor("U8", [2], 2, 4) }, four),
      /tensor "b" overlaps "a"/,
    ],
    [
      "a gap between tensors",
      file({ a: tensor("U8", [1], 0, 1), b: tensor("U8", [1], 3, 4) }, four),
      /tensor "b" leaves a gap of 2 bytes after "a"/,
    ],
    ["a gap before the first", file({ a: tensor("U8", [3], 1, 4) }, four), /gap of 1 bytes after the header/],
    [
      "bytes after the last",
      file({ a: tensor("U8", [3], 0, 3) }, four),
      /1 bytes after the last tensor belong to none/,
    ],
    [
      "a size that is not its shape's",
      file({ a: tensor("F32", [2], 0, 4) }, four),
      /F32 of shape \[2\] takes 8 bytes, its data_offsets \[0, 4\] hold 4/,
    ],
    [
      "a product beyond whole numbers",
      file({ a: tensor("F32", [2 ** 40, 2 ** 40], 0, 4) }, four),
      /takes 4\.8\d+e\+24 bytes/,
    ],
    [
      "a product that wraps round to zero",
      file({ a: tensor("U8", [2 ** 32, 2 ** 32], 0, 0) }),
      /takes 18446744073709552000 bytes/,
    ],
    ["a negative size", file({ a: tensor("U8", [-1], 0, 0) }), /shape is not a list/],
    ["a fraction", file({ a: tensor("U8", [1.5], 0, 0) }), /shape is not a list/],
    ["too many dimensions", file({ a: tensor("U8", new Array(99).fill(1), 0, 1) }, four), /list of at most 32 sizes/],
    ["offsets backwards", file({ a: tensor("U8", [4], 4, 0) }, four), /not \[begin, end\]/],
    ["an unknown type", file({ a: tensor("Q4", [4], 0, 4) }, four), /dtype "Q4"/],
    ["an entry that is no object", file({ a: 5 }), /entry "a" is not an object/],
    ["metadata that is not text", file({ __metadata__: { n: 5 } }), /__metadata__ "n" is not text/],
    [
      "a name that comes twice",
      file(
        '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        four,
      ),
      /names a tensor or a property twice/,
    ],
    [
      "a property that comes twice",
      file('{"a":{"dtype":"U8","shape":[2],"shape":[4],"data_offsets":[0,4]}}', four),
      /names a tensor or a property twice/,
    ],
    ["a name without letters", file({ "": tensor("U8", [4], 0, 4) }, four), /name has 1 to 1000 characters/],
  ];
  it.each(cases)("refuses %s", async (_what, bytes, message) => {
    const error = await refusal(bytes);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("m.safetensors");
  });

  it("refuses more tensors than any checkpoint has before it parses them", async () => {
    const header = `{${'"":0,'.repeat(4 * HEADER_LIMITS.tensors)}"":0}`;
    expect((await refusal(file(header))).message).toMatch(/more than 250000 tensors/);
  });

  it("gives typed errors only, whatever is done to a file", async () => {
    const bytes = await write([
      outgoing("one", "f16", [2, 3], new Uint8Array(12)),
      outgoing("two", "i32", [4], new Uint8Array(16)),
      outgoing("three", "bool", [1], new Uint8Array(1)),
    ]);
    const change = fc.record({ at: fc.nat(bytes.length - 1), to: fc.integer({ min: 0, max: 255 }) });
    const token = fc.constantFrom("{", "}", "[", "]", ",", ":", '"', "-", "9", "e", "\\", "null", "F64", "__proto__");
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 4 }),
        fc.option(fc.record({ at: fc.integer({ min: 8, max: bytes.length }), token })),
        fc.option(fc.nat(bytes.length)),
        async (changes, inserted, cut) => {
          let mutated = bytes.slice();
          for (const { at, to } of changes) mutated[at] = to;
          if (inserted) {
            const text = new TextEncoder().encode(inserted.token);
            mutated = Uint8Array.of(...mutated.subarray(0, inserted.at), ...text, ...mutated.subarray(inserted.at));
            const view = new DataView(mutated.buffer);
            view.setBigUint64(0, view.getBigUint64(0, true) + BigInt(text.length), true);
          }
          if (cut !== null) mutated = mutated.subarray(0, cut);
          try {
            const tensors = await open(mutated);
            for (const name of tensors.names) await tensors.readRaw(name);
          } catch (error) {
            expect(error).toBeInstanceOf(BitwrightError);
          }
        },
      ),
      { numRuns: 600 },
    );
  });
});

describe("writing safetensors", () => {
  it("reads back what it wrote, every type, in any order of sizes, aligned", async () => {
    const types: StoredDType[] = [
      "f64",
      "f32",
      "f16",
      "bf16",
      "i64",
      "i32",
      "i16",
      "i8",
      "u64",
      "u32",
      "u16",
      "u8",
      "bool",
    ];
    const bytesOfType: Record<string, number> = {
      f64: 8,
      i64: 8,
      u64: 8,
      f32: 4,
      i32: 4,
      u32: 4,
      i8: 1,
      u8: 1,
      bool: 1,
    };
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ dtype: fc.constantFrom(...types), shape: fc.array(fc.nat(5), { maxLength: 3 }) }), {
          maxLength: 12,
        }),
        fc.infiniteStream(fc.nat(255)),
        async (specs, values) => {
          const tensors = specs.map(({ dtype, shape }, index) => {
            const size = shape.reduce((product, length) => product * length, bytesOfType[dtype] ?? 2);
            return outgoing(
              `t${index}`,
              dtype,
              shape,
              Uint8Array.from({ length: size }, () => values.next().value),
            );
          });
          const written = await write(tensors);
          const header = JSON.parse(
            new TextDecoder().decode(written.subarray(8, 8 + new DataView(written.buffer).getUint32(0, true))),
          ) as Record<string, { data_offsets: [number, number] }>;
          const reader = await open(written);
          for (const [index, expected] of tensors.entries()) {
            expect(reader.info(`t${index}`)).toMatchObject({ dtype: expected.dtype, shape: expected.shape });
            expect(await reader.readRaw(`t${index}`)).toEqual(await expected.read());
            expect(header[`t${index}`].data_offsets[0] % (bytesOfType[expected.dtype] ?? 2)).toBe(0);
          }
          expect(
            (written.length -
              [...tensors].reduce(
                (sum, { shape, dtype }) => sum + shape.reduce((a, b) => a * b, bytesOfType[dtype] ?? 2),
                0,
              )) %
              8,
          ).toBe(0);
        },
      ),
      { numRuns: 100 },
    );
  });

  it("keeps the caller's order where sizes are whole", async () => {
    const reader = await open(
      await write(["b", "2", "a", "1"].map((name) => outgoing(name, "f16", [4], new Uint8Array(8)))),
    );
    expect(reader.names).toEqual(["b", "2", "a", "1"]);
  });

  it("refuses a source that gives another number of bytes, and equal names", async () => {
    await expect(write([outgoing("a", "f16", [4], new Uint8Array(6))])).rejects.toThrow(
      /a: shape \[4\] takes 8 bytes.*gave 6/,
    );
    const twice = outgoing("a", "u8", [0], new Uint8Array());
    await expect(write([twice, twice])).rejects.toThrow(/two tensors are called a/);
  });
});
