import { unsupportedError, usageError } from "../../errors.js";
import { deviceOperations } from "../device/engine.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine, Precision } from "../engine.js";
import type { Library } from "../koffi.js";
import { tensorAttentionOperations } from "./attention.js";
import { compilerFor } from "./compile.js";
import { addressOf, type CudaBlock, CudaDevice } from "./device.js";
import { findCudaDriver, versionText } from "./driver.js";
import { factorOperations } from "./factor.js";
import { halfConversion } from "./halves.js";
import { openToolkitLibrary } from "./libraries.js";
import { tensorNearestOperations } from "./nearest.js";
import { Cublas, productOperations } from "./products.js";

export interface CudaEngineOptions {
  /** Which card, as the driver counts them. Default 0. */
  device?: number;
  /** Of matrix products. Default "f32". */
  precision?: Precision;
  /** Bytes of the card that may be used at most. Default: all that is free. */
  memoryLimit?: number;
}

/**
 * The engine on an NVIDIA card: the driver, NVRTC and cuBLAS through koffi. Where one of them is missing, `reason` says which
 * and what to do. Throws "usage" for a card that is not there and "unsupported" for one that is too old.
 */
export async function createCudaEngine(
  options: CudaEngineOptions = {},
): Promise<{ engine: Engine } | { reason: string }> {
  const { device: ordinal = 0, precision = "f32", memoryLimit } = options;
  const found = await findCudaDriver();
  if ("reason" in found) return found;
  const { driver } = found;
  const nvrtc = openToolkitLibrary(driver.koffi, "nvrtc");
  if ("reason" in nvrtc) return nvrtc;
  const blas = openToolkitLibrary(driver.koffi, "cublas");
  if ("reason" in blas) return blas;

  const cards = driver.cards();
  const card = cards[ordinal];
  if (!card)
    throw usageError(
      `device: expected a card from 0 to ${cards.length - 1}, got ${ordinal}`,
      "bitwright doctor lists the cards",
    );
  const [major, minor] = card.capability;
  if (major < 8)
    throw unsupportedError(
      `${card.name} has compute capability ${major}.${minor}, expected 8.0 (Ampere) or newer`,
      "use --engine webgpu",
    );
  const compiler = compilerFor(nvrtc.library, card);
  const described = {
    description: `${card.name}, CUDA ${versionText(driver.version)}, NVRTC ${compiler.version}, products in ${precision}`,
    arithmetic: `cuda ${card.name}, NVRTC ${compiler.version}, ${precision}`,
  };
  const device = new CudaDevice(driver, card, compiler, described);
  const { workspace, cublas } = await openCublas(device, blas.library);
  const memory = new DeviceMemory(device, memoryLimit, async () => {
    cublas.close();
    device.release(workspace);
  });
  const conversion = halfConversion(memory);
  const engine = Object.assign(memory, {
    ...deviceOperations(memory),
    ...tensorNearestOperations(memory),
    ...productOperations(memory, cublas, precision, conversion),
    ...(precision === "f16" && {
      ...tensorAttentionOperations(memory, conversion),
      overflowed: conversion.overflowed,
    }),
    ...factorOperations(memory, cublas),
    name: "cuda" as const,
    description: described.description,
    threads: 1,
    precision,
    arithmetic: `${described.arithmetic}, cuBLAS ${cublas.version}`,
  });
  return { engine };
}

/** cuBLAS on a device; where it cannot be had, the device is closed. */
async function openCublas(device: CudaDevice, library: Library): Promise<{ workspace: CudaBlock; cublas: Cublas }> {
  let workspace: CudaBlock | undefined;
  try {
    workspace = device.allocate(Cublas.workspaceBytes);
    return { workspace, cublas: new Cublas(device, library, addressOf(workspace)) };
  } catch (error) {
    if (workspace) device.release(workspace);
    await device.close();
    throw error;
  }
}
