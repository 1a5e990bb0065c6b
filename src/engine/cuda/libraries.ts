import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { arch, env, platform } from "node:process";
import { firstLine } from "../../errors.js";
import type { Koffi, Library } from "../koffi.js";

// Where the parts of CUDA are: the driver, which comes with the card's driver, and two libraries of the toolkit.

/** NVRTC, cuBLAS, and what has to be loaded before each of them with global symbols. */
const TOOLKIT = {
  nvrtc: { name: "libnvrtc", before: "libnvrtc-builtins" },
  cublas: { name: "libcublas", before: "libcublasLt" },
} as const;

export type ToolkitLibrary = keyof typeof TOOLKIT;

/** Folders of a Python environment with NVIDIA's wheels: <site-packages>/nvidia/<part>/lib. */
function pythonFolders(): string[] {
  const roots = [env.VIRTUAL_ENV, env.CONDA_PREFIX, ...(env.PYTHONPATH ?? "").split(":")].filter((root) => root);
  // "python3" on the PATH names an environment too
  for (const folder of (env.PATH ?? "").split(":"))
    if (existsSync(join(folder, "python3"))) roots.push(dirname(folder));
  const folders: string[] = [];
  for (const root of new Set(roots as string[])) {
    const libraries = list(join(root, "lib"), /^python3/).map((python) => join(python, "site-packages"));
    for (const packages of [root, ...libraries])
      for (const part of list(join(packages, "nvidia"), /./)) folders.push(join(part, "lib"));
  }
  return folders;
}

/** Entries of a folder that match, whole paths, newest names first; none where there is no folder. */
function list(folder: string, pattern: RegExp): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => pattern.test(name))
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** Folders that may hold the toolkit's libraries, in the order in which they are tried. */
export function toolkitFolders(): string[] {
  const target = arch === "arm64" ? "sbsa-linux" : "x86_64-linux";
  const within = (root: string) => [join(root, "lib64"), join(root, "targets", target, "lib")];
  const roots = [env.BITWRIGHT_CUDA, env.CUDA_PATH, env.CUDA_HOME].filter((root) => root !== undefined);
  return [
    ...roots.flatMap((root) => [root, join(root, "lib"), ...within(root)]),
    ...["/usr/local/cuda", ...list("/usr/local", /^cuda-/)].flatMap(within),
    ...pythonFolders(),
    `/usr/lib/${arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`,
  ];
}

/** Opens a library of the toolkit, from the first folder whose files load; else says what was looked for. */
export function openToolkitLibrary(
  koffi: Koffi,
  which: ToolkitLibrary,
): { library: Library; path: string } | { reason: string } {
  const { name, before } = TOOLKIT[which];
  const failures: string[] = [];
  const file = (base: string) => new RegExp(`^${base}\\.so(\\.\\d+)*$`);
  for (const folder of toolkitFolders())
    for (const path of list(folder, file(name))) {
      try {
        // the loader does not look beside the library for what it needs
        for (const first of list(folder, file(before)).slice(0, 1)) koffi.load(first, { global: true });
        return { library: koffi.load(path, { global: true }), path };
      } catch (error) {
        failures.push(firstLine(error));
      }
    }
  for (const version of ["13", "12"]) {
    try {
      return { library: koffi.load(`${name}.so.${version}`, { global: true }), path: `${name}.so.${version}` };
    } catch (error) {
      failures.push(firstLine(error));
    }
  }
  return {
    reason:
      `${name} was not found or does not load (${failures[0]}); ` +
      "install the CUDA toolkit 12 or newer, or name its folder in CUDA_PATH",
  };
}

/** The driver's library. */
export function openDriver(koffi: Koffi): { library: Library } | { reason: string } {
  if (platform !== "linux" && platform !== "win32") return { reason: `CUDA is not there on ${platform}` };
  const names = platform === "win32" ? ["nvcuda.dll"] : ["libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"];
  let failure = "";
  for (const name of names) {
    try {
      return { library: koffi.load(name, { global: true }) };
    } catch (error) {
      failure ||= firstLine(error);
    }
  }
  return { reason: `no NVIDIA driver: ${failure}` };
}
