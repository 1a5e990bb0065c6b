// Makes the text slices in data/ from the full files: node scripts/slices.mjs FOLDER
// FOLDER holds c4/c4-sample.txt (one document a line) and wikitext-2/wiki.valid.raw; see data/README.md.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const C4_BYTES = 150_000;
const C4_FIRST = 6; // the first document taken: this choice holds no adult pages
const WIKITEXT_BYTES = 121_600; // 32 windows of 1024 tokens of the bundled model's tokenizer, and a little more

const folder = process.argv[2];
if (folder === undefined) {
  console.error("usage: node scripts/slices.mjs FOLDER");
  process.exit(2);
}
const bytesOf = (text) => Buffer.byteLength(text);
mkdirSync("data", { recursive: true });

// C4: every n-th document, each only once, so that the slice is as varied as the whole.
const documents = [
  ...new Set(
    readFileSync(join(folder, "c4/c4-sample.txt"), "utf8")
      .split("\n")
      .filter((line) => line.trim() !== ""),
  ),
];
const step = Math.max(1, Math.floor(documents.reduce((sum, line) => sum + bytesOf(line), 0) / C4_BYTES));
let c4 = "";
for (let i = C4_FIRST; i < documents.length && bytesOf(c4) + bytesOf(documents[i]) < C4_BYTES; i += step)
  c4 += `${documents[i]}\n`;
writeFileSync("data/c4-slice.txt", c4);

// WikiText-2: the beginning of the validation split, up to the end of a line.
let wikitext = "";
for (const line of readFileSync(join(folder, "wikitext-2/wiki.valid.raw"), "utf8").split(/(?<=\n)/)) {
  if (bytesOf(wikitext) >= WIKITEXT_BYTES) break;
  wikitext += line;
}
writeFileSync("data/wikitext2-validation-slice.txt", wikitext);
console.log(`data/c4-slice.txt ${bytesOf(c4)} bytes, data/wikitext2-validation-slice.txt ${bytesOf(wikitext)} bytes`);
