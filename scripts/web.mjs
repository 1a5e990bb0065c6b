// The page: `npm run web` builds it and serves it on this machine; `node scripts/web.mjs --build OUT` writes the files for a
// server of yours. Options: --port N.
import { createReadStream } from "node:fs";
import { copyFile, mkdir, readdir, readFile, realpath, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { buildKernels } from "./kernels.mjs";
import { embedSources } from "./sources.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const MODEL = "models/wiki-7m";
const COPIED = [
  ["web/index.html", "index.html"],
  ["web/style.css", "style.css"],
  ["web/icon.svg", "icon.svg"],
  ["data/c4-slice.txt", "c4.txt"],
  ["data/wikitext2-validation-slice.txt", "wikitext2.txt"],
];

/** Writes the page's files to a folder: nothing else is needed to host it. */
export async function buildWeb(output) {
  await buildKernels();
  embedSources();
  await mkdir(join(output, MODEL), { recursive: true });
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ["web/main.ts", "web/worker.ts"],
    outdir: resolve(output),
    bundle: true,
    minify: true,
    sourcemap: true,
    platform: "browser",
    format: "esm",
    target: "es2022",
    legalComments: "none",
    logLevel: "warning",
    metafile: true,
  });
  await writeFile(join(output, "licenses.txt"), await licensesOf(Object.keys(metafile.inputs)));
  const model = (await readdir(join(ROOT, MODEL))).map((name) => [`${MODEL}/${name}`, `${MODEL}/${name}`]);
  for (const [from, to] of [...COPIED, ...model]) await copyFile(join(ROOT, from), join(output, to));
}

/** The licences of this package and of those whose files are in the bundle. */
async function licensesOf(inputs) {
  const found = inputs.map((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0]).filter(Boolean);
  const texts = [];
  for (const folder of [".", ...new Set(found)].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(ROOT, folder, "package.json"), "utf8"));
    const file = (await readdir(join(ROOT, folder))).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file === undefined ? "" : `\n\n${(await readFile(join(ROOT, folder, file), "utf8")).trim()}`;
    texts.push(`${name} ${version}: ${license}${text}`);
  }
  return `${texts.join("\n\n----\n\n")}\n`;
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".json": "application/json",
  ".map": "application/json",
  ".txt": "text/plain; charset=utf-8",
};

const HEADERS = {
  "cache-control": "no-cache",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "accept-ranges": "bytes",
};

/** Shared memory, and with it threads, is given to isolated pages only. */
const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/** Also in index.html, for servers that send none; a worker has that of its own answer only. */
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; worker-src 'self' blob:; connect-src 'self' http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** The file in the folder that a request means; undefined for anything else, such as what lies outside. */
async function fileOf(root, target) {
  let path;
  try {
    path = decodeURIComponent(new URL(target, "http://localhost").pathname);
  } catch {
    return undefined;
  }
  if (path.includes("\0")) return undefined;
  const wanted = resolve(root, `.${path.endsWith("/") ? `${path}index.html` : path}`);
  const real = await realpath(wanted).catch(() => undefined); // links that lead out are outside too
  if (!real?.startsWith(root + sep)) return undefined;
  const info = await stat(real);
  return info.isFile() ? { path: real, size: info.size } : undefined;
}

/** "bytes=A-B" of a file, whole if there is none, undefined where it cannot be had. */
function rangeOf(header, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? "");
  if (!match) return { first: 0, last: size - 1, partial: false };
  const first = Number(match[1]);
  const last = Math.min(match[2] === "" ? size - 1 : Number(match[2]), size - 1);
  return first <= last ? { first, last, partial: true } : undefined;
}

async function answer(root, isolated, request, response) {
  const common = { ...HEADERS, ...(isolated ? ISOLATION : {}), "content-security-policy": POLICY };
  const end = (status, text, more = {}) => {
    response.writeHead(status, { ...common, ...more, "content-type": "text/plain; charset=utf-8" });
    response.end(`${text}\n`);
  };
  if (request.method !== "GET" && request.method !== "HEAD")
    return end(405, "only GET and HEAD", { allow: "GET, HEAD" });
  const file = await fileOf(root, request.url ?? "/");
  if (!file) return end(404, "there is no such file");
  const range = rangeOf(request.headers.range, file.size);
  if (!range) return end(416, "no such range", { "content-range": `bytes */${file.size}` });
  const { first, last, partial } = range;
  response.writeHead(partial ? 206 : 200, {
    ...common,
    "content-type": TYPES[extname(file.path)] ?? "application/octet-stream",
    "content-length": last - first + 1,
    ...(partial ? { "content-range": `bytes ${first}-${last}/${file.size}` } : {}),
  });
  if (request.method === "HEAD" || file.size === 0) return response.end();
  createReadStream(file.path, { start: first, end: last })
    .on("error", () => response.destroy())
    .pipe(response);
}

/** Serves a folder to this machine. `isolated` false: as a host without the two headers does. Port 0: any that is free. */
export async function serveWeb(folder, { port = 0, isolated = true } = {}) {
  const root = await realpath(folder);
  const server = createServer((request, response) => {
    answer(root, isolated, request, response).catch(() => response.destroy());
  });
  await new Promise((ready, fail) => {
    server.on("error", fail);
    server.listen(port, "127.0.0.1", ready);
  });
  return {
    address: `http://localhost:${server.address().port}/`,
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

async function main() {
  const { values } = parseArgs({ options: { build: { type: "string" }, port: { type: "string", default: "8080" } } });
  if (values.build !== undefined) {
    await buildWeb(values.build);
    console.log(`The page is in ${values.build}. A server should send with every file, for threads:`);
    for (const [name, value] of Object.entries(ISOLATION)) console.log(`  ${name}: ${value}`);
    return;
  }
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535)
    throw new Error(`--port ${values.port}: expected 0 to 65535`);
  const folder = join(ROOT, "build", "web");
  await buildWeb(folder);
  const { address } = await serveWeb(folder, { port });
  console.log(`Bitwright is at ${address} (Ctrl-C ends it)`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error) => {
    console.error(
      error.code === "EADDRINUSE" ? `the port is taken (${error.message}); choose another with --port` : error.message,
    );
    process.exitCode = 1;
  });
}
