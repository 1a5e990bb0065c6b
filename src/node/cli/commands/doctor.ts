import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findBlas } from "../../../engine/blas/library.js";
import { findCudaDriver, versionText } from "../../../engine/cuda/driver.js";
import { openToolkitLibrary } from "../../../engine/cuda/libraries.js";
import { hasRelaxedSimd } from "../../../engine/wasm/runtime.js";
import { firstLine } from "../../../errors.js";
import { formatBytes } from "../../../report/format.js";
import { createEngine, enableRelaxedSimd } from "../../engines.js";
import { availableMemory } from "../../memory.js";
import { packageFolder, packageVersion } from "../../package.js";
import { BUNDLED_TEXTS } from "../../texts.js";
import type { WebgpuProbe } from "../../webgpu-probe.js";
import type { AddCommand, Handler } from "../command.js";
import { addCommonOptions, type CommonOptions } from "../options.js";

const EXAMPLES = `
Examples:
  What this machine offers, and one command for each thing that is missing:
    $ bitwright doctor`;

export const addDoctor: AddCommand = (program, attach) => {
  const command = program
    .command("doctor")
    .summary("show what this machine offers and what is missing")
    .description("Looks for engines, cards, threads, libraries and memory, and says what to do about what is missing.");
  addCommonOptions(command).addHelpText("after", EXAMPLES);
  attach(command, doctor);
};

interface Finding {
  name: string;
  state: "ok" | "missing" | "failed";
  detail: string;
  /** What mends it. */
  remedy?: string;
}

const doctor: Handler<CommonOptions> = async (_args, _options, { terminal }) => {
  const findings = [nodeVersion(), processor(), memory(), ...(await engines()), ...bundled()];
  const auto = await createEngine("auto");
  const chosen = { name: auto.engine.name, description: auto.engine.description, reason: auto.reason };
  await auto.engine.close();
  const healthy = findings.every(({ state }) => state !== "failed");
  terminal.document({ version: packageVersion(), healthy, findings, chosen });
  const marks = { ok: "ok     ", missing: "missing", failed: "FAILED " } as const;
  for (const { name, state, detail, remedy } of findings) {
    terminal.print(`${marks[state]}  ${name.padEnd(18)} ${detail}`);
    if (remedy !== undefined) terminal.print(`         ${" ".repeat(18)} -> ${remedy}`);
  }
  terminal.print();
  terminal.print(`--engine auto takes ${chosen.name}: ${chosen.reason}`);
};

function nodeVersion(): Finding {
  const major = Number(process.versions.node.split(".")[0]);
  const detail = `${process.versions.node}, ${process.platform} ${process.arch}`;
  if (major >= 20) return { name: "Node", state: "ok", detail };
  return { name: "Node", state: "failed", detail, remedy: "install Node 20 or newer" };
}

function processor(): Finding {
  const model = cpus()[0]?.model.trim() ?? "unknown";
  const threads = availableParallelism();
  return { name: "processor", state: "ok", detail: `${model}, ${threads} thread${threads === 1 ? "" : "s"}` };
}

function memory(): Finding {
  const detail = `${formatBytes(availableMemory())} free of ${formatBytes(totalmem())}`;
  if (availableMemory() > 1e9) return { name: "memory", state: "ok", detail };
  return { name: "memory", state: "missing", detail, remedy: "close other programs: less than 1 GB is free" };
}

async function engines(): Promise<Finding[]> {
  const findings: Finding[] = [{ name: "engine reference", state: "ok", detail: "plain loops, for checking" }];
  try {
    const { engine } = await createEngine("wasm");
    findings.push({ name: "engine wasm", state: "ok", detail: engine.description });
    await engine.close();
  } catch (error) {
    const remedy = "update Node: 20 or newer has WebAssembly SIMD and threads";
    findings.push({ name: "engine wasm", state: "failed", detail: (error as Error).message, remedy });
  }
  enableRelaxedSimd();
  findings.push(
    hasRelaxedSimd()
      ? { name: "relaxed SIMD", state: "ok", detail: "fused multiply-add; --reproducible goes without" }
      : {
          name: "relaxed SIMD",
          state: "missing",
          detail: "products take longer",
          remedy: "update Node to 22 or newer",
        },
  );
  const blas = await findBlas(availableParallelism());
  findings.push(
    "library" in blas
      ? { name: "engine blas", state: "ok", detail: blas.library.description }
      : { name: "engine blas", state: "missing", detail: blas.reason, remedy: blasRemedy(blas.reason) },
  );
  return [...findings, ...(await cuda()), await webgpu()];
}

/** The driver, its cards, and the two libraries of the toolkit that the engine loads. */
async function cuda(): Promise<Finding[]> {
  const found = await findCudaDriver();
  if ("reason" in found) {
    const remedy = /koffi/.test(found.reason) ? "npm install koffi" : "install NVIDIA's driver, if there is a card";
    return [{ name: "engine cuda", state: "missing", detail: found.reason, remedy }];
  }
  const { driver } = found;
  const findings: Finding[] = driver.cards().map(({ ordinal, name, capability, bytes }) => ({
    name: `card ${ordinal}`,
    state: "ok",
    detail: `${name}, ${formatBytes(bytes)}, compute capability ${capability.join(".")}, driver for CUDA ${versionText(driver.version)}`,
  }));
  for (const which of ["nvrtc", "cublas"] as const) {
    const library = openToolkitLibrary(driver.koffi, which);
    findings.push(
      "path" in library
        ? { name: which, state: "ok", detail: library.path }
        : { name: which, state: "missing", detail: library.reason, remedy: toolkitRemedy() },
    );
  }
  const complete = findings.every(({ state }) => state === "ok");
  const detail = complete ? "--engine cuda, --device NUMBER" : "the toolkit is not complete";
  return [...findings, { name: "engine cuda", state: complete ? "ok" : "missing", detail }];
}

/** The one command that brings NVRTC and cuBLAS. */
function toolkitRemedy(): string {
  if (existsSync("/usr/bin/apt-get")) return "sudo apt-get install libcublas12 libnvrtc12 (or NVIDIA's cuda-toolkit)";
  return "install NVIDIA's CUDA toolkit 12 or newer";
}

async function webgpu(): Promise<Finding> {
  const name = "engine webgpu";
  const probe = fileURLToPath(new URL("../../webgpu-probe.js", import.meta.url));
  let found: WebgpuProbe;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [probe], { timeout: 60_000 });
    found = JSON.parse(stdout) as WebgpuProbe;
  } catch (error) {
    const detail = `starting WebGPU ended the process (${firstLine(error)})`;
    return { name, state: "missing", detail, remedy: "update the card's driver" };
  }
  if ("reason" in found) {
    const driver = "install the card's Vulkan driver (on Debian and Ubuntu: sudo apt-get install mesa-vulkan-drivers)";
    const remedy = found.missingPackage ? "npm install webgpu" : driver;
    return { name, state: "missing", detail: found.reason, remedy };
  }
  const { description, software } = found;
  return { name, state: "ok", detail: software ? `${description}: runs on the processor, for checking` : description };
}

/** The one command that gives this machine a BLAS library. */
function blasRemedy(reason: string): string {
  if (/koffi/.test(reason)) return "npm install koffi";
  if (process.platform === "darwin") return "brew install openblas";
  if (process.platform !== "linux") return "install OpenBLAS and name its file in BITWRIGHT_BLAS";
  if (existsSync("/usr/bin/apt-get")) return "sudo apt-get install libopenblas0-pthread";
  if (existsSync("/usr/bin/dnf")) return "sudo dnf install openblas-threads";
  if (existsSync("/sbin/apk")) return "sudo apk add openblas";
  if (existsSync("/usr/bin/pacman")) return "sudo pacman -S openblas";
  return "install OpenBLAS and name its file in BITWRIGHT_BLAS";
}

function bundled(): Finding[] {
  const models = join(packageFolder, "models");
  const names = existsSync(models)
    ? readdirSync(models).filter((name) => existsSync(join(models, name, "config.json")))
    : [];
  const texts = Object.entries(BUNDLED_TEXTS).filter(([, file]) => existsSync(join(packageFolder, "data", file)));
  return [
    names.length > 0
      ? { name: "bundled models", state: "ok", detail: names.map((name) => join("models", name)).join(", ") }
      : {
          name: "bundled models",
          state: "missing",
          detail: "none in this installation",
          remedy: "clone the repository for models/wiki-7m",
        },
    {
      name: "bundled texts",
      state: texts.length > 0 ? "ok" : "missing",
      detail: texts.map(([name]) => name).join(", ") || "none",
    },
  ];
}
