import {
  formatBits,
  formatBytes,
  formatPerplexity,
  formatSeconds,
  formatShare,
  formatSmall,
} from "../src/report/format.js";
import { button, element, make, makeRow } from "./dom.js";
import type { RunResult } from "./protocol.js";
import { zipOf } from "./zip.js";

let shown: RunResult | undefined;
let links: string[] = [];

/** Only Chromium has it; the library's types do not. */
type FolderPicker = (options: { mode: "readwrite" }) => Promise<FileSystemDirectoryHandle>;
const folderPicker = (): FolderPicker | undefined =>
  (globalThis as unknown as { showDirectoryPicker?: FolderPicker }).showDirectoryPicker;

/** Shows what came out, with a link to every file. */
export function showResult(result: RunResult): void {
  shown = result;
  const { evaluation, evaluationFailure, bitsPerWeight, beforeBytes, afterBytes, meanProxyError } = result;
  const rows: [string, string, string][] = [
    ["bits per weight of the linears", formatBits(result.beforeBits), formatBits(bitsPerWeight)],
    ["size of all tensors", formatBytes(beforeBytes), formatBytes(afterBytes)],
  ];
  if (evaluation) {
    rows.push(
      ["perplexity", formatPerplexity(evaluation.againstPerplexity), formatPerplexity(evaluation.perplexity)],
      ["KL divergence, nats a token", "0", formatSmall(evaluation.klDivergence)],
      ["same likeliest next token", formatShare(1), formatShare(evaluation.topAgreement)],
    );
  }
  element("result-head").replaceChildren(headRow(["", "before", "after"]));
  element("result-rows").replaceChildren(...rows.map((row) => makeRow(row, 2)));
  const measured = evaluation ? ` Measured on ${evaluation.tokens} predicted tokens of WikiText-2.` : "";
  const failed = evaluationFailure ? ` Not measured: ${evaluationFailure.message}.` : "";
  element("result-text").textContent =
    `${result.linears.length} linears in ${formatSeconds(result.seconds)}, mean proxy error ${formatSmall(meanProxyError)}, ${result.format} format.${measured}${failed}`;
  for (const link of links) URL.revokeObjectURL(link);
  links = [];
  element("files").replaceChildren(
    ...[...result.files].map(([name, blob]) => {
      const href = URL.createObjectURL(blob);
      links.push(href);
      return make(
        "li",
        {},
        make("a", { href, download: name }, name),
        make("span", { className: "note" }, formatBytes(blob.size)),
      );
    }),
  );
  button("save-folder").hidden = !folderPicker();
  element("download-state").textContent = "";
  element("result").hidden = false;
}

export function hideResult(): void {
  element("result").hidden = true;
}

function headRow(titles: readonly string[]): HTMLTableRowElement {
  const row = make("tr");
  titles.forEach((title, index) => {
    row.append(make("th", { scope: "col", className: index > 0 ? "number" : "" }, title));
  });
  return row;
}

export function watchDownloads(): void {
  button("download-all").addEventListener("click", () =>
    report(async ({ name, files }, say) => {
      say("packing ...");
      const href = URL.createObjectURL(await zipOf(folderName(name), files));
      make("a", { href, download: `${folderName(name)}.zip` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000); // the download has begun by then
      return "";
    }),
  );
  button("save-folder").addEventListener("click", () =>
    report(async ({ name, files }, say) => {
      const parent = await folderPicker()?.({ mode: "readwrite" });
      if (!parent) return "";
      const folder = await parent.getDirectoryHandle(folderName(name), { create: true });
      for (const [file, blob] of files) {
        say(`writing ${file} ...`);
        const stream = await (await folder.getFileHandle(file, { create: true })).createWritable();
        await blob.stream().pipeTo(stream);
      }
      return `saved to ${folderName(name)}`;
    }),
  );
}

const folderName = (model: string): string => `${model}-quantized`;

/** Runs a download and says how it went. Its buttons rest meanwhile. */
async function report(work: (result: RunResult, say: (text: string) => void) => Promise<string>): Promise<void> {
  if (!shown) return;
  const buttons = [button("download-all"), button("save-folder")];
  const say = (text: string) => {
    element("download-state").textContent = text;
  };
  for (const each of buttons) each.disabled = true;
  try {
    say(await work(shown, say));
  } catch (error) {
    const cancelled = error instanceof DOMException && error.name === "AbortError";
    say(cancelled ? "" : `it could not be saved: ${error instanceof Error ? error.message : error}`);
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}
