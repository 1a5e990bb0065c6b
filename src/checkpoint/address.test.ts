import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { folderAddress, openAddress } from "./address.js";
import { openCheckpointModel } from "./open.js";

const FIXTURE = "test/golden/families/llama-gqa-llama3-tied";

/** A fetch that answers Range requests for these files. */
function serve(files: ReadonlyMap<string, Uint8Array>): { fetch: typeof fetch; asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    fetch: async (url, init) => {
      const name = new URL(String(url)).pathname.replace("/model/", "");
      asked.push(name);
      const file = files.get(name);
      if (!file) return new Response("", { status: 404 });
      const [first, last] = (new Headers(init?.headers).get("range") ?? "").slice(6).split("-").map(Number);
      const part = file.slice(first, last + 1);
      const range = `bytes ${first}-${first + part.length - 1}/${file.length}`;
      return new Response(part, { status: 206, headers: { "content-range": range } });
    },
  };
}

const fixture = (name: string) => new Uint8Array(readFileSync(`${FIXTURE}/${name}`));
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe("openAddress", () => {
  it("opens a checkpoint and reads weights", async () => {
    const files = new Map(["config.json", "model.safetensors"].map((name) => [name, fixture(name)]));
    const model = await openCheckpointModel(await openAddress("http://host/model", { fetch: serve(files).fetch }));
    expect(model.format).toBe("plain");
    const [name] = model.tensors.names;
    expect((await model.tensors.readRaw(name)).length).toBe(model.tensors.info(name)?.bytes);
  });

  it("finds shards by the index, and takes none of its names for a path", async () => {
    const files = new Map([["config.json", fixture("config.json")]]);
    files.set("model-1.safetensors", fixture("model.safetensors"));
    const index = (shard: string) => json({ weight_map: { "model.norm.weight": shard } });
    files.set("model.safetensors.index.json", index("model-1.safetensors"));
    const folder = await openAddress("http://host/model/", { fetch: serve(files).fetch });
    expect(await folder.list()).toContain("model-1.safetensors");
    expect((await openCheckpointModel(folder)).tensors.names).toEqual(["model.norm.weight"]);
    files.set("model.safetensors.index.json", index("../../secret"));
    const server = serve(files);
    await expect(openAddress("http://host/model/", { fetch: server.fetch })).rejects.toMatchObject({ kind: "format" });
    expect(server.asked.filter((name) => name.includes("secret"))).toEqual([]);
  });

  it("understands folders, their config.json and pages of huggingface.co", () => {
    const at = (address: string) => folderAddress(address).href;
    expect(at("https://host/a/b")).toBe("https://host/a/b/");
    expect(at(" https://host/a/b/config.json?x=1#y ")).toBe("https://host/a/b/");
    expect(at("https://host")).toBe("https://host/");
    const main = "https://huggingface.co/ORG/Model-1.5/resolve/main/";
    expect(at("https://huggingface.co/ORG/Model-1.5")).toBe(main);
    expect(at("https://huggingface.co/ORG/Model-1.5/tree/main")).toBe(main);
    expect(at("https://huggingface.co/ORG/Model-1.5/blob/main/config.json")).toBe(main);
    expect(at(main)).toBe(main);
    expect(at("https://huggingface.co/ORG/Model/tree/v2")).toBe("https://huggingface.co/ORG/Model/resolve/v2/");
    for (const bad of ["", "model", "file:///etc", "javascript:alert(1)", "https://me:secret@host/"]) {
      expect(() => folderAddress(bad)).toThrow(/address/);
    }
  });
});
