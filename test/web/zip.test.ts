import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { crc32, zipOf } from "../../web/zip.js";

const folder = mkdtempSync(join(tmpdir(), "bitwright-zip-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const hasUnzip = spawnSync("unzip", ["-v"]).status === 0;
if (!hasUnzip) console.log("skipped: the archives are not unpacked by another program, unzip is not here");

const files = new Map([
  ["config.json", new Uint8Array(Buffer.from('{"a": 1}\n'))],
  ["größe 1.bin", Uint8Array.from({ length: 300_000 }, (_, index) => (index * 2654435761) >>> 24)],
  ["empty.txt", new Uint8Array()],
  ["last.bin", new Uint8Array(70_000).fill(7)],
]);
const blobs = new Map([...files].map(([name, bytes]) => [name, new Blob([bytes])]));

describe("the archive of a result", () => {
  it("has the checksums of the standard, in one part or several", () => {
    const check = new TextEncoder().encode("123456789"); // of every catalogue of CRCs
    expect(crc32(check)).toBe(0xcbf43926);
    expect(crc32(check.subarray(4), crc32(check.subarray(0, 4)))).toBe(0xcbf43926);
  });

  it("holds every file as it is, and is the same each time", async () => {
    const archive = Buffer.from(await (await zipOf("model", blobs)).arrayBuffer());
    expect(archive.readUInt16LE(archive.length - 12)).toBe(files.size); // entries of the directory
    for (const bytes of files.values()) expect(archive.includes(Buffer.from(bytes))).toBe(true);
    expect(Buffer.compare(archive, Buffer.from(await (await zipOf("model", blobs)).arrayBuffer()))).toBe(0);
  });

  it.skipIf(!hasUnzip).each([
    ["plain", undefined],
    ["with ZIP64 fields for what is large", 100_000],
    ["with ZIP64 fields for all", 1],
  ])("is unpacked by another program: %s", async (title, limit) => {
    const out = join(folder, title);
    mkdirSync(out);
    const path = join(out, "a.zip");
    writeFileSync(path, Buffer.from(await (await zipOf("model", blobs, limit)).arrayBuffer()));
    const { status, stdout, stderr } = spawnSync("unzip", ["-q", path, "-d", out], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C.UTF-8" },
    });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
    for (const [name, bytes] of files) {
      expect(Buffer.compare(readFileSync(join(out, "model", name)), bytes)).toBe(0);
    }
  });
});
