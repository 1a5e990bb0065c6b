import { describe, expect, it } from "vitest";
import type { Folder, OutputFolder } from "./folder.js";
import { blobFolder, blobOutput, memoryFolder, memoryOutput } from "./memory.js";

const bytes = (...values: number[]) => Uint8Array.from(values);

const KINDS = [
  { kind: "memory", create: () => withFolder(memoryOutput(), ({ files }) => memoryFolder("f", files)) },
  { kind: "blobs", create: () => withFolder(blobOutput(), ({ files }) => blobFolder("f", files)) },
];

function withFolder<O extends OutputFolder & { files: ReadonlyMap<string, unknown> }>(
  output: O,
  open: (o: O) => Folder,
) {
  return { output, files: () => output.files, folder: () => open(output) };
}

describe.each(KINDS)("an output of $kind", ({ create }) => {
  it("appears as a whole and reads back as a folder", async () => {
    const { output, files, folder: open } = create();
    const sink = await output.create("a.bin");
    const part = bytes(1, 2, 3);
    await sink.write(part);
    part.fill(9); // the writer may use its buffer again
    await sink.write(bytes(4));
    await sink.close();
    await expect(output.create("a.bin")).rejects.toMatchObject({ kind: "usage" });
    await expect(output.create("../a")).rejects.toMatchObject({ kind: "usage" });
    expect(files().size).toBe(0);
    await output.commit();
    const folder = open();
    expect(await folder.list()).toEqual(["a.bin"]);
    const file = await folder.open("a.bin");
    expect(file.size).toBe(4);
    expect(await file.read(1, 3)).toEqual(bytes(2, 3, 4));
    await expect(file.read(2, 3)).rejects.toMatchObject({ kind: "format" });
  });

  it("holds nothing after it was discarded", async () => {
    const { output, files } = create();
    await (await output.create("a.bin")).close();
    await output.discard();
    await output.commit();
    expect(files().size).toBe(0);
  });
});
