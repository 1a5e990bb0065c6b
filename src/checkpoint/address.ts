import type { Folder } from "../files/folder.js";
import { type HttpOptions, httpFolder, parseAddress } from "../files/http.js";
import { readJsonObject } from "../files/json.js";
import { INDEX_FILE, parseIndex, SINGLE_FILE } from "../files/sharded.js";
import { CARRIED } from "./carry.js";
import { CONFIG_FILE, OLD_FILE, REPORT_FILE } from "./open.js";

/**
 * The files of a checkpoint at a web address: those of the names that checkpoints have, and the shards of its index. Nothing but
 * the parts that are needed is read. The server must answer Range requests and let other origins read (CORS).
 */
export async function openAddress(address: string, options: HttpOptions = {}): Promise<Folder> {
  const names = [CONFIG_FILE, SINGLE_FILE, INDEX_FILE, OLD_FILE, REPORT_FILE, ...CARRIED];
  const folder = await httpFolder(folderAddress(address), names, options);
  const files = await folder.list();
  if (!files.includes(SINGLE_FILE) && files.includes(INDEX_FILE)) {
    const index = parseIndex(await readJsonObject(folder, INDEX_FILE), `${folder.name}/${INDEX_FILE}`);
    folder.add(new Set(index.values()));
  }
  return folder;
}

/** Pages of a model on huggingface.co, with or without a revision. */
const MODEL_PAGE = /^\/([\w.-]+\/[\w.-]+)(?:\/(?:tree|blob|resolve)\/([^/]+)(?:\/config\.json)?)?\/*$/;

/** Where the files are: a folder's address, that of its config.json, or a model's page on huggingface.co. */
export function folderAddress(address: string): URL {
  const url = parseAddress(address);
  url.hash = "";
  url.search = "";
  const page = url.hostname === "huggingface.co" ? MODEL_PAGE.exec(url.pathname) : null;
  if (page) url.pathname = `/${page[1]}/resolve/${page[2] ?? "main"}/`;
  else url.pathname = `${url.pathname.replace(/\/config\.json$/, "").replace(/\/+$/, "")}/`;
  return url;
}
