import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { arch, env, platform } from "node:process";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Koffi, Library } from "../koffi.js";
import { openDriver, openToolkitLibrary, toolkitFolders } from "./libraries.js";

// Where the toolkit is looked for, with folders made for it and a loader that only notes what it is asked for.

const NAMES = ["BITWRIGHT_CUDA", "CUDA_PATH", "CUDA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PATH"];

let root: string;
let saved: Record<string, string | undefined>;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "bitwright-libraries-"));
  saved = Object.fromEntries(NAMES.map((name) => [name, env[name]]));
  for (const name of NAMES) delete env[name];
});
afterEach(() => {
  rmSync(root, { recursive: true, force: true });
  for (const [name, value] of Object.entries(saved)) {
    if (value === undefined) delete env[name];
    else env[name] = value;
  }
});

/** Makes empty files within the root. */
function files(...paths: string[]): void {
  for (const path of paths) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), "");
  }
}

/** Loads what `loads` says yes to; what it was asked for, and whether with global symbols. */
function loader(loads: (path: string) => boolean): { koffi: Koffi; asked: string[] } {
  const asked: string[] = [];
  const load = (path: string, options?: { global?: boolean }): Library => {
    asked.push(options?.global ? path : `${path} without global symbols`);
    if (!loads(path)) throw new Error(`cannot load ${path}\nmore lines`);
    return { func: () => () => path };
  };
  const never = () => {
    throw new Error("not needed here");
  };
  return { koffi: { load, alloc: never, free: never, address: never, view: never }, asked };
}
const ours = (path: string) => path.startsWith(root);
const within = (path: string) => join(root, path);

describe("toolkitFolders", () => {
  it("has what the user names first, then the usual places", () => {
    env.BITWRIGHT_CUDA = within("a");
    env.CUDA_PATH = within("b");
    env.CUDA_HOME = within("c");
    const target = arch === "arm64" ? "sbsa-linux" : "x86_64-linux";
    const folders = toolkitFolders();
    const expected = ["a", "b", "c"].flatMap((name) =>
      ["", "lib", "lib64", `targets/${target}/lib`].map((folder) => within(join(name, folder))),
    );
    expect(folders.slice(0, 12)).toEqual(expected);
    expect(folders.slice(12, 14)).toEqual(["/usr/local/cuda/lib64", `/usr/local/cuda/targets/${target}/lib`]);
    expect(folders.at(-1)).toMatch(/^\/usr\/lib\/.*-linux-gnu$/);
  });

  it("knows NVIDIA's wheels in environments of Python: active ones, PYTHONPATH, and the python3 on the PATH", () => {
    const wheel = (name: string) => `${name}/lib/python3.12/site-packages/nvidia`;
    files(`${wheel("venv")}/cuda_nvrtc/lib/x`, `${wheel("venv")}/cublas/lib/x`, `${wheel("conda")}/cublas/lib/x`);
    files("site/nvidia/cu13/lib/x", "bin-only/bin/python3", `${wheel("bin-only")}/cublas/lib/x`);
    env.VIRTUAL_ENV = within("venv");
    env.CONDA_PREFIX = within("conda");
    env.PYTHONPATH = `${within("nothing")}:${within("site")}`;
    env.PATH = `${within("empty")}:${within("bin-only/bin")}`;
    const found = toolkitFolders().filter(ours);
    expect(found).toEqual([
      within(`${wheel("venv")}/cuda_nvrtc/lib`),
      within(`${wheel("venv")}/cublas/lib`),
      within(`${wheel("conda")}/cublas/lib`),
      within("site/nvidia/cu13/lib"),
      within(`${wheel("bin-only")}/cublas/lib`),
    ]);
  });
});

describe("openToolkitLibrary", () => {
  it("takes the newest file of the first folder that has one, after what it needs, with global symbols", () => {
    files(
      "old/lib/libnvrtc.so.11.2",
      "new/lib64/libnvrtc.so",
      "new/lib64/libnvrtc.so.9",
      "new/lib64/libnvrtc.so.12.6.85",
    );
    files("new/lib64/libnvrtc-builtins.so.12.6", "new/lib64/libnvrtc-builtins.alt.so", "new/lib64/libnvrtc_static.a");
    env.CUDA_PATH = within("new");
    env.CUDA_HOME = within("old");
    const { koffi, asked } = loader(ours);
    expect(openToolkitLibrary(koffi, "nvrtc")).toMatchObject({ path: within("new/lib64/libnvrtc.so.12.6.85") });
    expect(asked).toEqual([within("new/lib64/libnvrtc-builtins.so.12.6"), within("new/lib64/libnvrtc.so.12.6.85")]);
  });

  it("needs cuBLAS's other half before cuBLAS", () => {
    files("a/libcublas.so.13", "a/libcublasLt.so.13", "a/libcublasLt.so.12");
    env.BITWRIGHT_CUDA = within("a");
    const { koffi, asked } = loader(ours);
    openToolkitLibrary(koffi, "cublas");
    expect(asked).toEqual([within("a/libcublasLt.so.13"), within("a/libcublas.so.13")]);
  });

  it("goes on to the next file and folder where one does not load", () => {
    files("a/libcublas.so.13", "a/libcublas.so.12", "b/libcublas.so.12");
    env.BITWRIGHT_CUDA = within("a");
    env.CUDA_PATH = within("b");
    const { koffi, asked } = loader((path) => path === within("b/libcublas.so.12"));
    expect(openToolkitLibrary(koffi, "cublas")).toMatchObject({ path: within("b/libcublas.so.12") });
    expect(asked.filter(ours)).toEqual(
      ["a/libcublas.so.13", "a/libcublas.so.12", "b/libcublas.so.12"].map((path) => within(path)),
    );
  });

  it("leaves the rest to the loader's own search", () => {
    const { koffi } = loader((path) => path === "libnvrtc.so.12");
    expect(openToolkitLibrary(koffi, "nvrtc")).toMatchObject({ path: "libnvrtc.so.12" });
  });

  it("says which file failed, how, and what to do", () => {
    files("a/libnvrtc.so.12");
    env.BITWRIGHT_CUDA = within("a");
    const { koffi } = loader(() => false);
    expect(openToolkitLibrary(koffi, "nvrtc")).toEqual({
      reason:
        `libnvrtc was not found or does not load (cannot load ${within("a/libnvrtc.so.12")}); ` +
        "install the CUDA toolkit 12 or newer, or name its folder in CUDA_PATH",
    });
    delete env.BITWRIGHT_CUDA;
    expect(openToolkitLibrary(koffi, "cublas")).toEqual({
      reason: expect.stringMatching(/^libcublas was not found or does not load \(cannot load .*CUDA_PATH$/),
    });
  });
});

describe.runIf(platform === "linux")("openDriver", () => {
  it("takes the driver's library by its name, or where containers have it", () => {
    const places = ["libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"];
    for (const [index, place] of places.entries()) {
      const { koffi, asked } = loader((path) => path === place);
      expect(openDriver(koffi)).toHaveProperty("library");
      expect(asked).toEqual(places.slice(0, index + 1));
    }
  });

  it("says in a line that there is none", () => {
    expect(openDriver(loader(() => false).koffi)).toEqual({ reason: "no NVIDIA driver: cannot load libcuda.so.1" });
  });
});
