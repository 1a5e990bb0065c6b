import { describe, expect, it } from "vitest";
import { BitwrightError } from "../errors.js";
import { blobFolder, memoryFolder, memoryOutput } from "./memory.js";
import {
  type OutgoingTensor,
  parseByteSize,
  planShards,
  writeCheckpointTensors,
  writeSafetensors,
} from "./safetensors-writer.js";
import { INDEX_FILE, openCheckpoint, SINGLE_FILE } from "./sharded.js";

const outgoing = (name: string, size: number, fill = 1): OutgoingTensor => ({
  name,
  dtype: "u8",
  shape: [size],
  read: async () => new Uint8Array(size).fill(fill),
});

async function written(tensors: OutgoingTensor[], maxShardBytes?: number): Promise<Map<string, Uint8Array>> {
  const output = memoryOutput();
  await writeCheckpointTensors(output, tensors, maxShardBytes);
  await output.commit();
  return output.files;
}

async function shard(...tensors: OutgoingTensor[]): Promise<Uint8Array> {
  const output = memoryOutput();
  await writeSafetensors(await output.create("s"), tensors);
  await output.commit();
  return output.files.get("s") ?? expect.unreachable();
}

const json = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

async function refusal(files: Record<string, Uint8Array>): Promise<BitwrightError> {
  const error = await openCheckpoint(memoryFolder("model", new Map(Object.entries(files)))).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof BitwrightError) return error;
  throw new Error(`expected a refusal, got ${String(error)}`);
}

describe("checkpoints of one or many files", () => {
  const tensors = [outgoing("a", 8, 1), outgoing("b", 16, 2), outgoing("c", 40, 3), outgoing("d", 8, 4)];

  it("writes one file below the limit", async () => {
    const files = await written(tensors);
    expect([...files.keys()]).toEqual([SINGLE_FILE]);
    expect((await openCheckpoint(memoryFolder("m", files))).names).toEqual(["a", "b", "c", "d"]);
  });

  it("writes shards above it, with the index of Hugging Face, and reads them back from memory or Blobs", async () => {
    const files = await written(tensors, 24);
    expect([...files.keys()].sort()).toEqual([
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      INDEX_FILE,
    ]);
    expect(JSON.parse(new TextDecoder().decode(files.get(INDEX_FILE)))).toEqual({
      metadata: { total_size: 72 },
      weight_map: {
        a: "model-00001-of-00003.safetensors",
        b: "model-00001-of-00003.safetensors",
        c: "model-00002-of-00003.safetensors",
        d: "model-00003-of-00003.safetensors",
      },
    });
    const blobs = new Map([...files].map(([name, bytes]) => [name, new Blob([bytes.slice()])]));
    for (const folder of [memoryFolder("m", files), blobFolder("m", blobs)]) {
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint.names).toEqual(["a", "b", "c", "d"]);
      expect(checkpoint.info("c")).toMatchObject({ dtype: "u8", shape: [40] });
      expect([...(await checkpoint.readRaw("b"))]).toEqual(new Array(16).fill(2));
      expect([...(await checkpoint.readRange("c", 39, 1))]).toEqual([3]);
      await expect(checkpoint.readRaw("x")).rejects.toThrow(/tensor x is missing from m/);
      await expect(checkpoint.readRange("d", 8, 1)).rejects.toThrow(/outside/);
    }
  });

  it("puts a tensor larger than a shard into one of its own", () => {
    const names = planShards([outgoing("a", 4), outgoing("b", 100), outgoing("c", 4), outgoing("d", 4)], 8);
    expect(names.map((group) => group.map(({ name }) => name))).toEqual([["a"], ["b"], ["c", "d"]]);
  });

  it("takes the only safetensors file under whatever name", async () => {
    const checkpoint = await openCheckpoint(
      memoryFolder("m", new Map([["weights.safetensors", await shard(tensors[0])]])),
    );
    expect(checkpoint.names).toEqual(["a"]);
  });

  const index = (weight_map: unknown) => ({ [INDEX_FILE]: json({ metadata: {}, weight_map }) });
  it("says which shard is missing, and how much is in it", async () => {
    const files = {
      ...index({ a: "one.safetensors", b: "two.safetensors", c: "two.safetensors" }),
      "one.safetensors": await shard(tensors[0]),
    };
    expect((await refusal(files)).message).toBe(
      "model: shard two.safetensors is missing, the index has 2 tensors in it",
    );
  });

  it("says which tensor its shard lacks", async () => {
    const files = {
      ...index({ a: "one.safetensors", b: "one.safetensors" }),
      "one.safetensors": await shard(tensors[0]),
    };
    expect((await refusal(files)).message).toBe(
      "tensor b is missing from model/one.safetensors, where the index has it",
    );
  });

  it.each([
    ["no map", json({ metadata: {} }), /expected "weight_map"/],
    ["a map that is a list", json({ weight_map: [] }), /expected "weight_map"/],
    ["an empty map", json({ weight_map: {} }), /names 0 tensors/],
    [
      "a shard outside the folder",
      json({ weight_map: { a: "../secret.safetensors" } }),
      /"..\/secret.safetensors" is not a plain file name/,
    ],
    ["a shard that is no name", json({ weight_map: { a: 5 } }), /shard of a is not a file name/],
    ["broken JSON", json('{"weight_map": {'), /index.json is not JSON/],
    ["a list", json("[]"), /expected a JSON object/],
  ])("refuses an index with %s", async (_what, bytes, message) => {
    const error = await refusal({ [INDEX_FILE]: bytes });
    expect(error.kind).toBe("format");
    expect(error.message).toMatch(message);
  });

  it("says what a folder without weights lacks", async () => {
    expect((await refusal({ "config.json": json({}) })).message).toMatch(
      /model has no weights: expected model.safetensors/,
    );
    const pickled = await refusal({ "pytorch_model.bin": new Uint8Array(4) });
    expect(pickled.kind).toBe("unsupported");
    expect(pickled.message).toMatch(/pickled PyTorch \(pytorch_model.bin\)/);
    const loose = { "a.safetensors": await shard(tensors[0]), "b.safetensors": await shard(tensors[1]) };
    expect((await refusal(loose)).message).toMatch(/2 safetensors files .* but no model.safetensors.index.json/);
  });
});

describe("folders in memory", () => {
  it("refuse names that are paths", async () => {
    const folder = memoryFolder("m", new Map([["a", new Uint8Array(2)]]));
    for (const name of ["../a", "x/a", "", "..", "a\\b", "a\u0000"]) {
      await expect(folder.open(name)).rejects.toMatchObject({ kind: "usage" });
    }
    await expect(folder.open("b")).rejects.toThrow(/there is no file b in m/);
    await expect((await folder.open("a")).read(1, 2)).rejects.toThrow(/bytes 1 to 3 lie outside the file of 2 bytes/);
  });

  it("show nothing of an output before it is committed", async () => {
    const output = memoryOutput();
    const sink = await output.create("a");
    await sink.write(Uint8Array.of(1));
    await sink.write(Uint8Array.of(2, 3));
    await sink.close();
    expect(output.files.size).toBe(0);
    await output.commit();
    expect([...(output.files.get("a") ?? [])]).toEqual([1, 2, 3]);
    await expect(output.create("../a")).rejects.toMatchObject({ kind: "usage" });
  });
});

describe("sizes", () => {
  it.each([
    ["5GB", 5e9],
    ["500 MiB", 500 * 2 ** 20],
    ["1.5kb", 1500],
    ["123", 123],
  ])("%s", (text, bytes) => expect(parseByteSize(text)).toBe(bytes));

  it.each(["", "GB", "-1GB", "5 apples", "0", "1e99"])("refuses %j", (text) => {
    expect(() => parseByteSize(text)).toThrow(/is not a size/);
  });
});
