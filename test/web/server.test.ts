import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serveWeb } from "./browser.js";

const scratch = mkdtempSync(join(tmpdir(), "bitwright-server-"));
let server: Awaited<ReturnType<typeof serveWeb>>;

beforeAll(async () => {
  const root = join(scratch, "site");
  mkdirSync(join(root, "sub"), { recursive: true });
  writeFileSync(join(root, "index.html"), "<p>home</p>");
  writeFileSync(join(root, "sub", "data.bin"), "0123456789");
  writeFileSync(join(root, "empty.txt"), "");
  writeFileSync(join(scratch, "secret.txt"), "secret");
  mkdirSync(join(scratch, "site-neighbour"));
  writeFileSync(join(scratch, "site-neighbour", "index.html"), "secret");
  symlinkSync(join(scratch, "secret.txt"), join(root, "link.txt"));
  server = await serveWeb(root);
});
afterAll(async () => {
  await server.close();
  rmSync(scratch, { recursive: true, force: true });
});

/** The path as it is: fetch would tidy it. */
function get(path: string, headers: Record<string, string> = {}, method = "GET") {
  return new Promise<{ status: number; headers: Record<string, unknown>; body: string }>((done, fail) => {
    const { hostname, port } = new URL(server.address);
    request({ hostname, port, path, headers, method }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      response.on("end", () => done({ status: response.statusCode ?? 0, headers: response.headers, body }));
    })
      .on("error", fail)
      .end();
  });
}

describe("the server of the page", () => {
  it("serves files with their type, isolated, and lets nobody guess", async () => {
    const home = await get("/?x=1#y");
    expect(home).toMatchObject({ status: 200, body: "<p>home</p>" });
    expect(home.headers).toMatchObject({
      "content-type": "text/html; charset=utf-8",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
      "x-content-type-options": "nosniff",
    });
    expect(home.headers["content-security-policy"]).toMatch(/^default-src 'none'/);
    expect(await get("/empty.txt")).toMatchObject({ status: 200, body: "" });
    expect(await get("/nothing")).toMatchObject({ status: 404 });
    expect(await get("/sub")).toMatchObject({ status: 404 });
    expect(await get("/", {}, "POST")).toMatchObject({ status: 405 });
    expect(await get("/", {}, "HEAD")).toMatchObject({ status: 200, body: "" });
  });

  it("answers Range requests", async () => {
    const part = await get("/sub/data.bin", { range: "bytes=2-4" });
    expect(part).toMatchObject({ status: 206, body: "234" });
    expect(part.headers["content-range"]).toBe("bytes 2-4/10");
    expect(await get("/sub/data.bin", { range: "bytes=7-" })).toMatchObject({ status: 206, body: "789" });
    expect(await get("/sub/data.bin", { range: "bytes=7-1000" })).toMatchObject({ status: 206, body: "789" });
    expect(await get("/sub/data.bin", { range: "bytes=10-11" })).toMatchObject({ status: 416 });
    expect(await get("/sub/data.bin", { range: "bytes=-3" })).toMatchObject({ status: 200, body: "0123456789" });
  });

  it.each([
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/sub/..%2f..%2fsecret.txt",
    "/..%5csecret.txt",
    "//../secret.txt",
    "/link.txt",
    "/../site-neighbour/",
    "/%00",
    "/%",
    "/%ff",
  ])("gives nothing of what lies outside: %s", async (path) => {
    const { status, body } = await get(path);
    expect([404, 400]).toContain(status);
    expect(body).not.toMatch(/secret(?!\.)/);
  });
});
