import { button, element, input } from "./dom.js";
import type { ModelSource } from "./protocol.js";

/** More files than this are no checkpoint. */
const MOST_FILES = 10_000;

/** Where the page's server keeps the example model. */
const EXAMPLE = "models/wiki-7m/";

/** Lets people choose a folder, drop one, or type an address. */
export function watchModelChoice(onChoice: (source: ModelSource) => void, onProblem: (message: string) => void): void {
  const folder = input("folder");
  folder.addEventListener("change", () => {
    const files = [...(folder.files ?? [])];
    folder.value = ""; // the same folder may be chosen again
    if (files.length === 0) return;
    input("address").value = "";
    onChoice(fromPicker(files));
  });
  const open = () => {
    const address = input("address").value.trim();
    if (address === "") onProblem("type the address of a checkpoint first");
    else onChoice({ kind: "address", address });
  };
  button("open-address").addEventListener("click", open);
  input("address").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter would start the job
    open();
  });
  button("open-example").addEventListener("click", () => {
    input("address").value = new URL(EXAMPLE, location.href).href;
    open();
  });
  watchDrops(onChoice, onProblem);
}

/** The files directly in the chosen folder, not those in its folders. */
function fromPicker(files: readonly File[]): ModelSource {
  const direct = files.filter(({ webkitRelativePath }) => webkitRelativePath.split("/").length <= 2);
  const name = files[0].webkitRelativePath.split("/")[0] || "the folder";
  return { kind: "files", name, files: new Map(direct.map((file) => [file.name, file])) };
}

function watchDrops(onChoice: (source: ModelSource) => void, onProblem: (message: string) => void): void {
  const zone = element("drop");
  const isOpen = () => !zone.closest("fieldset")?.disabled;
  // anywhere on the page: a browser would leave it for a file that misses the zone
  for (const type of ["dragenter", "dragover"] as const) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", isOpen());
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) zone.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (!isOpen()) return;
    const entries = [...(event.dataTransfer?.items ?? [])].flatMap((item) => item.webkitGetAsEntry() ?? []);
    if (entries.length === 0) return;
    fromDrop(entries).then(onChoice, (error: unknown) => onProblem(`what was dropped cannot be read: ${error}`));
  });
}

async function fromDrop(entries: readonly FileSystemEntry[]): Promise<ModelSource> {
  const only = entries.length === 1 ? entries[0] : undefined;
  const inside = only && isDirectory(only) ? await entriesOf(only) : entries;
  const files = new Map<string, Blob>();
  for (const entry of inside) {
    if (isFile(entry)) files.set(entry.name, await new Promise<File>((done, fail) => entry.file(done, fail)));
  }
  return { kind: "files", name: only && isDirectory(only) ? only.name : "the dropped files", files };
}

const isDirectory = (entry: FileSystemEntry): entry is FileSystemDirectoryEntry => entry.isDirectory;
const isFile = (entry: FileSystemEntry): entry is FileSystemFileEntry => entry.isFile;

/** A reader gives a hundred at a time, and none at the end. */
async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
    if (some.length === 0) return all;
    all.push(...some);
    if (all.length > MOST_FILES) throw new Error(`the folder has more than ${MOST_FILES} files`);
  }
}
