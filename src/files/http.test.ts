import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { httpFolder } from "./http.js";

// A real server, honest or not.

const DATA = Uint8Array.from({ length: 40_000_000 }, (_, index) => (index * 2654435761) >>> 24);
const FILES: Record<string, Uint8Array> = {
  "config.json": new TextEncoder().encode("{}"),
  "big.bin": DATA,
  "empty.bin": new Uint8Array(),
};

let server: Server;
let base: URL;
let requests: string[] = [];
/** What the server does instead of answering well; false: nothing. */
let misbehave: (request: IncomingMessage, response: ServerResponse, file: Uint8Array) => boolean = () => false;

beforeAll(async () => {
  server = createServer((request, response) => {
    const name = decodeURIComponent((request.url ?? "").slice("/some%20folder/".length));
    requests.push(`${request.method} ${name} ${request.headers.range ?? ""}`);
    const file = FILES[name];
    if (!file) return void response.writeHead(404).end("no");
    if (misbehave(request, response, file)) return;
    const [first, last] = rangeOf(request, file.length);
    if (first > last) return void response.writeHead(416, { "content-range": `bytes */${file.length}` }).end();
    response
      .writeHead(206, { "content-range": `bytes ${first}-${last}/${file.length}`, "content-length": last - first + 1 })
      .end(file.subarray(first, last + 1));
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  base = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/some folder/`);
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  requests = [];
  misbehave = () => false;
});

function rangeOf(request: IncomingMessage, size: number): [number, number] {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  return match ? [Number(match[1]), Math.min(Number(match[2]), size - 1)] : [0, size - 1];
}

const open = (names = ["config.json", "absent.json", "big.bin", "empty.bin"]) => httpFolder(base, names, { pause: 1 });

describe("a folder of a web server", () => {
  it("lists the names that are there and reads parts", async () => {
    const folder = await open();
    expect(await folder.list()).toEqual(["big.bin", "config.json", "empty.bin"]);
    expect(requests).toHaveLength(4);
    const file = await folder.open("big.bin");
    expect(file.size).toBe(DATA.length);
    expect(await file.read(1000, 50)).toEqual(DATA.slice(1000, 1050));
    expect(requests.at(-1)).toBe("GET big.bin bytes=1000-1049");
    expect(requests).toHaveLength(5);
    expect((await (await folder.open("empty.bin")).read(0, 0)).length).toBe(0);
    await expect(file.read(DATA.length - 1, 2)).rejects.toMatchObject({ kind: "format" });
    await expect(folder.open("absent.json")).rejects.toMatchObject({ kind: "io" });
    await expect(folder.open("../x")).rejects.toMatchObject({ kind: "usage" });
  });

  it("reads what is large in several requests", async () => {
    const file = await (await open()).open("big.bin");
    const whole = await file.read(0, DATA.length);
    expect(Buffer.compare(whole, DATA)).toBe(0);
    expect(requests.filter((line) => line.startsWith("GET big.bin bytes=")).length).toBe(1 + 3);
  });

  it("asks again when the connection breaks or the server is busy", async () => {
    const file = await (await open()).open("big.bin");
    let failures = 0;
    misbehave = (_, response) => {
      if (++failures > 3) return false;
      if (failures === 1) response.destroy();
      else if (failures === 2) response.writeHead(503).end();
      else {
        // ends in the middle
        response.writeHead(206, { "content-range": `bytes 0-99/${DATA.length}` });
        response.end(DATA.subarray(0, 10));
      }
      return true;
    };
    expect(await file.read(0, 100)).toEqual(DATA.slice(0, 100));
    failures = Number.NEGATIVE_INFINITY;
    await expect(file.read(0, 100)).rejects.toMatchObject({
      kind: "io",
      message: expect.stringMatching(/503|fail|after/),
    });
  });

  it("takes a small file of a server without ranges, and no large one", async () => {
    misbehave = (_, response, file) => {
      response.writeHead(200).end(file === DATA ? Buffer.alloc(70 * 2 ** 20) : file);
      return true;
    };
    const folder = await open(["config.json"]);
    expect(await (await folder.open("config.json")).read(0, 2)).toEqual(FILES["config.json"]);
    await expect(open()).rejects.toMatchObject({ kind: "unsupported", message: expect.stringMatching(/no Range/) });
  });

  it("believes the server nothing", async () => {
    const file = await (await open()).open("big.bin");
    const answers: [RegExp, string, number][] = [
      [/answered with 206 bytes 5-14/, `bytes 5-14/${DATA.length}`, 10], // another range
      [/answered with 206 bytes 0-9\/77/, "bytes 0-9/77", 10], // another size: the file was replaced
      [/more than the 10 bytes/, `bytes 0-9/${DATA.length}`, 100], // more than asked for
    ];
    for (const [message, range, length] of answers) {
      misbehave = (_, response) => {
        response.writeHead(206, { "content-range": range }).end(DATA.subarray(0, length));
        return true;
      };
      await expect(file.read(0, 10)).rejects.toMatchObject({ kind: "format", message: expect.stringMatching(message) });
    }
    misbehave = (_, response) => {
      response.writeHead(200).end(DATA.subarray(0, 10));
      return true;
    };
    await expect(file.read(0, 10)).rejects.toMatchObject({ kind: "format" });
    for (const size of ["-1", "1e30", "9999999999999999999", "*"]) {
      misbehave = (request, response) => {
        const head = request.method === "HEAD";
        response.writeHead(head ? 500 : 206, { "content-range": `bytes 0-0/${size}` }).end(head ? undefined : "x");
        return true;
      };
      await expect(open()).rejects.toMatchObject({ kind: "unsupported", message: expect.stringMatching(/how large/) });
    }
  });

  it("takes the size from a HEAD request where Content-Range is not exposed", async () => {
    misbehave = (request, response, file) => {
      const [first, last] = rangeOf(request, file.length);
      if (request.method === "HEAD") response.writeHead(200, { "content-length": file.length }).end();
      else response.writeHead(206).end(file.subarray(first, last + 1));
      return true;
    };
    const folder = await open(["config.json", "big.bin"]);
    expect((await folder.open("big.bin")).size).toBe(DATA.length);
  });

  it("names a refusal and a server that is not there", async () => {
    misbehave = (_, response) => {
      response.writeHead(403).end();
      return true;
    };
    await expect(open()).rejects.toMatchObject({ kind: "io", message: expect.stringMatching(/403.*sign-in/) });
    expect(requests).toHaveLength(1); // the first alone
    await expect(httpFolder(new URL("http://127.0.0.1:9/"), ["config.json"], { pause: 1 })).rejects.toMatchObject({
      kind: "io",
      remedy: expect.stringMatching(/CORS/),
    });
  });
});
