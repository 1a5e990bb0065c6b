import { deviceOperations } from "../device/engine.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine } from "../engine.js";
import { closeDevice, openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { factorOperations } from "./factor.js";
import { gramOperations } from "./gram.js";
import { whyNoHalfProducts } from "./halfmatmul.js";
import { halfConversion } from "./halves.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { matmulOperations } from "./matmul.js";
import { manyNearestOperations } from "./nearest.js";

export interface WebgpuEngineOptions {
  /** Default: the browser's, `navigator.gpu`. */
  gpu?: GPU;
  /** Of matrix products: "f16" rounds their operands, where the adapter can multiply such matrices. Default "f32". */
  precision?: "f32" | "f16";
  /** Bytes that tensors may take at most, those kept in reserve included. Default: what the device gives. */
  memoryLimit?: number;
}

/** All operations as kernels of WebGPU, in f32. Where there is no adapter, `reason` says so. */
export async function createWebgpuEngine(
  options: WebgpuEngineOptions = {},
): Promise<{ engine: Engine; software: boolean } | { reason: string }> {
  const gpu = options.gpu ?? (globalThis.navigator as Navigator | undefined)?.gpu;
  if (!gpu) return { reason: "there is no WebGPU here: a browser that has it, on a page from https or localhost" };
  const found = await openDevice(gpu);
  if ("reason" in found) return found;
  const half = options.precision === "f16";
  const obstacle = half ? whyNoHalfProducts(found.open) : undefined;
  if (obstacle !== undefined) {
    closeDevice(found.open);
    return { reason: `products in f16 on ${found.open.title}: ${obstacle}` };
  }
  const device = new WebgpuDevice(found.open, KERNEL_FILES);
  const memory = new DeviceMemory(device, options.memoryLimit);
  const { name, bindingBytes } = device;
  const [description, arithmetic] = half
    ? [`${device.description}, products in f16`, `${device.arithmetic}, f16 packed`]
    : [device.description, device.arithmetic];
  const conversion = half ? halfConversion(memory) : undefined;
  const engine = Object.assign(
    memory,
    { name, description, arithmetic, threads: 1, precision: half ? "f16" : "f32" } as const,
    deviceOperations(memory),
    manyNearestOperations(memory),
    matmulOperations(memory, { bindingBytes, half: conversion }),
    gramOperations(memory, { bindingBytes }),
    factorOperations(memory),
    conversion && { overflowed: conversion.overflowed },
  );
  return { engine, software: found.open.software };
}
