import { execFile } from "node:child_process";
import { mkdir, mkdtemp, open, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openFile, openFolder, readJsonFile } from "./folder.js";
import { bytesOfParts, createOutput, fileSink, writeFileAtomic } from "./output.js";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "bitwright-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const text = (value: string) => new TextEncoder().encode(value);

/** Writes a small checkpoint through an output. */
async function write(path: string, content: string, options?: Parameters<typeof createOutput>[1]) {
  const output = await createOutput(path, options);
  const sink = await output.create("config.json");
  await sink.write(text(content));
  await sink.close();
  return output;
}

describe("an output folder", () => {
  it("is not there before it is committed, and whole after", async () => {
    const path = join(root, "deep", "out");
    const output = await write(path, "one");
    expect(await readdir(join(root, "deep"))).not.toContain("out");
    await output.commit();
    expect(await readdir(join(root, "deep"))).toEqual(["out"]);
    expect(await readFile(join(path, "config.json"), "utf8")).toBe("one");
  });

  it("leaves nothing when it is discarded, even with a file half written", async () => {
    const output = await createOutput(join(root, "out"));
    await (await output.create("a")).write(text("half"));
    await output.discard();
    expect(await readdir(root)).toEqual([]);
    await output.discard(); // again does no harm
  });

  it("refuses to commit while a file is open, and a name twice", async () => {
    const output = await createOutput(join(root, "out"));
    await output.create("a");
    await expect(output.commit()).rejects.toThrow(/still open: a/);
    await expect(output.create("a")).rejects.toThrow(/already has a file a/);
    await expect(output.create("../a")).rejects.toMatchObject({ kind: "usage" });
    await output.discard();
  });

  it("refuses a folder that exists, unless it is to be replaced", async () => {
    const path = join(root, "out");
    await (await write(path, "old")).commit();
    await expect(createOutput(path)).rejects.toMatchObject({
      kind: "usage",
      message: expect.stringContaining("exists"),
    });
    const output = await write(path, "new", { overwrite: true });
    expect(await readFile(join(path, "config.json"), "utf8")).toBe("old"); // until the new one stands
    await output.commit();
    expect(await readFile(join(path, "config.json"), "utf8")).toBe("new");
    expect(await readdir(root)).toEqual(["out"]);
  });

  it("keeps the old one when the new one is discarded", async () => {
    const path = join(root, "out");
    await (await write(path, "old")).commit();
    await (await write(path, "new", { overwrite: true })).discard();
    expect(await readFile(join(path, "config.json"), "utf8")).toBe("old");
    expect(await readdir(root)).toEqual(["out"]);
  });

  it("takes an empty folder, refuses a file, and never replaces what is no checkpoint", async () => {
    const path = join(root, "out");
    await mkdir(path);
    await (await write(path, "one")).commit();
    expect(await readdir(path)).toEqual(["config.json"]);

    await expect(createOutput(join(path, "config.json"))).rejects.toThrow(/is a file/);
    await mkdir(join(root, "home", "pictures"), { recursive: true });
    await writeFile(join(root, "home", "config.json"), "{}");
    await expect(createOutput(join(root, "home"), { overwrite: true })).rejects.toThrow(
      /does not look like a checkpoint/,
    );
    await mkdir(join(root, "notes"));
    await writeFile(join(root, "notes", "text"), "mine");
    await expect(createOutput(join(root, "notes"), { overwrite: true })).rejects.toThrow(/does not look like/);
    expect(await readFile(join(root, "notes", "text"), "utf8")).toBe("mine");
  });

  it("is written by one job at a time", async () => {
    const output = await createOutput(join(root, "out"));
    await expect(createOutput(join(root, "out"))).rejects.toThrow(/is being written already/);
    await output.discard();
    await (await createOutput(join(root, "out"))).discard();
  });

  it("clears what killed runs left, and puts back what they were replacing", async () => {
    const { stdout } = await promisify(execFile)("sh", ["-c", "echo $$"]); // the number of a process that has ended
    const owner = `${hostname().replace(/[^\w-]/g, "_")}-${stdout.trim()}`;
    await mkdir(join(root, `out.partial-${owner}`));
    await mkdir(join(root, `out.replaced-${owner}`));
    await writeFile(join(root, `out.replaced-${owner}`, "config.json"), "old");
    await mkdir(join(root, "out.partial-elsewhere-1"));
    await expect(createOutput(join(root, "out"))).rejects.toThrow(/exists/);
    expect((await readdir(root)).sort()).toEqual(["out", "out.partial-elsewhere-1"]);
    expect(await readFile(join(root, "out", "config.json"), "utf8")).toBe("old");
  });

  it("says at once when the disk is too small, and leaves nothing", async () => {
    const opening = createOutput(join(root, "out"), { expectedBytes: 1e18 });
    await expect(opening).rejects.toMatchObject({
      kind: "io",
      message: expect.stringMatching(/needs about 1,000,000,000,000 MB, the disk has [\d,]+ MB left/),
      remedy: expect.stringContaining("free some space"),
    });
    expect(await readdir(root)).toEqual([]);
  });

  // /dev/full answers every write with "no space left"
  it.runIf(process.platform === "linux")("says where a disk became full, and what to do", async () => {
    const sink = fileSink(await open("/dev/full", "w"), "out/model.safetensors");
    await sink.write(new Uint8Array(5));
    await expect(sink.close()).rejects.toMatchObject({
      kind: "io",
      message: "out/model.safetensors could not be written past byte 0: the disk is full",
      remedy: expect.stringContaining("free some space"),
    });
  });
});

describe("a folder on disk", () => {
  it("lists files and reads ranges of them", async () => {
    await writeFile(join(root, "b"), "hello");
    await writeFile(join(root, "a"), "");
    await mkdir(join(root, "sub"));
    const folder = await openFolder(root);
    expect(await folder.list()).toEqual(["a", "b"]);
    const file = await folder.open("b");
    expect(file.size).toBe(5);
    expect(new TextDecoder().decode(await file.read(1, 3))).toBe("ell");
    expect(await (await folder.open("a")).read(0, 0)).toHaveLength(0);
    await expect(file.read(3, 3)).rejects.toThrow(/bytes 3 to 6 lie outside the file of 5 bytes/);
    await file.close();
  });

  it("refuses paths, folders and files that are not there", async () => {
    await mkdir(join(root, "sub"));
    const folder = await openFolder(root);
    await expect(folder.open("sub/../x")).rejects.toMatchObject({ kind: "usage" });
    await expect(folder.open("sub")).rejects.toThrow(/not a regular file/);
    await expect(folder.open("model.safetensors")).rejects.toThrow(/there is no file model.safetensors in /);
    await expect(openFolder(join(root, "nowhere"))).rejects.toMatchObject({ kind: "usage" });
    await writeFile(join(root, "file"), "");
    await expect(openFolder(join(root, "file"))).rejects.toThrow(/is not a folder/);
  });

  it("follows the links of a Hugging Face cache, and no others out of the folder", async () => {
    const snapshot = join(root, "models--me--it", "snapshots", "abc");
    const blobs = join(root, "models--me--it", "blobs");
    await mkdir(snapshot, { recursive: true });
    await mkdir(blobs);
    await writeFile(join(blobs, "hash"), "weights");
    await writeFile(join(root, "secret"), "secret");
    await mkdir(join(root, "models--me--it", "blobs-of-others"));
    await writeFile(join(root, "models--me--it", "blobs-of-others", "hash"), "secret");
    await symlink(join("..", "..", "blobs", "hash"), join(snapshot, "model.safetensors"));
    await symlink(join(root, "secret"), join(snapshot, "config.json"));
    await symlink(join("..", "..", "blobs-of-others", "hash"), join(snapshot, "tokenizer.json"));
    await symlink("model.safetensors", join(snapshot, "inside"));
    const folder = await openFolder(snapshot);
    for (const name of ["model.safetensors", "inside"]) {
      const file = await folder.open(name);
      expect(new TextDecoder().decode(await file.read(0, file.size))).toBe("weights");
      await file.close();
    }
    for (const name of ["config.json", "tokenizer.json"]) {
      await expect(folder.open(name)).rejects.toThrow(/is a link to .*, outside the folder/);
    }
    await symlink(snapshot, join(root, "alias")); // the folder itself may be a link
    expect(await (await openFolder(join(root, "alias"))).list()).toContain("model.safetensors");
  });

  it("reads JSON files within bounds", async () => {
    const path = join(root, "a.json");
    await writeFileAtomic(path, '{"a": [1]}');
    expect(await readJsonFile(path)).toEqual({ a: [1] });
    await expect(readJsonFile(path, 5)).rejects.toThrow(/has 10 bytes, more than the 5 allowed/);
    await writeFileAtomic(path, "{");
    await expect(readJsonFile(path)).rejects.toMatchObject({ kind: "format" });
    await writeFileAtomic(path, Uint8Array.of(0x22, 0xff, 0x22));
    await expect(readJsonFile(path)).rejects.toThrow(/not UTF-8/);
    await writeFileAtomic(path, [Uint8Array.of(0x5b), new Uint8Array(0), Uint8Array.of(0x31, 0x5d)]);
    expect(await readJsonFile(path)).toEqual([1]);
    await expect(readJsonFile(join(root, "b.json"))).rejects.toMatchObject({ kind: "io" });
    expect(await readdir(root)).toEqual(["a.json"]); // no temporary names are left
    await expect(writeFileAtomic(join(root, "no", "a"), "x")).rejects.toMatchObject({ kind: "io" });
  });

  it("is cut into pieces without a copy, for a call takes so much at most", () => {
    const whole = Uint8Array.from({ length: 20 }, (_, i) => i);
    const parts = [whole.subarray(0, 7), whole.subarray(7, 7), whole.subarray(7, 8), whole.subarray(8)];
    for (let begin = 0; begin <= 20; begin++)
      for (let end = begin; end <= 25; end++) {
        const pieces = bytesOfParts(parts, begin, end);
        expect(pieces.flatMap((piece) => [...piece])).toEqual([...whole.subarray(begin, end)]);
        expect(pieces.every(({ buffer, byteLength }) => buffer === whole.buffer && byteLength > 0)).toBe(true);
      }
  });

  it("notices when a file shrinks under it", async () => {
    const path = join(root, "a");
    await writeFile(path, "12345");
    const file = await openFile(path);
    await writeFile(path, "1");
    await expect(file.read(0, 5)).rejects.toThrow(/became shorter/);
    await file.close();
  });
});
