import type { KernelDeclaration } from "./device.js";

// A kernel file has sections that begin with a line `//# name`; what stands before the first is shared by all of them.
// The file `lib` is for all kernels of a device.

/** Kernel files by their names without extension. */
export type KernelFiles = Readonly<Record<string, string>>;

const MARK = /^\/\/# (\w+)[^\n]*$/gm;

/** The parts of a file: what is shared, and the text of each kernel. */
export function kernelSections(text: string): { shared: string; sections: ReadonlyMap<string, string> } {
  const marks = [...text.matchAll(MARK)];
  const shared = text.slice(0, marks[0]?.index ?? text.length);
  const sections = new Map<string, string>();
  for (const [place, mark] of marks.entries()) {
    const end = marks[place + 1]?.index ?? text.length;
    sections.set(mark[1], text.slice(mark.index + mark[0].length, end));
  }
  return { shared, sections };
}

/** Source of one kernel: the library, what its file shares, and its section. */
export function kernelSource(files: KernelFiles, { name, file }: KernelDeclaration): string {
  const text = files[file];
  if (text === undefined) throw new Error(`kernel ${name}: no file ${file}`);
  const { shared, sections } = kernelSections(text);
  const body = sections.get(name);
  if (body === undefined) throw new Error(`kernel ${name}: no section in ${file}`);
  return `${files.lib}\n${shared}\n${body}`;
}
