import { firstLine } from "../../errors.js";

/** What the kernels may use beside plain WGSL. Detected, never required. */
export interface WebgpuFeatures {
  /** Arithmetic in f16. */
  readonly f16: boolean;
  readonly subgroups: boolean;
  /** Products of small matrices by a subgroup (Chromium and Dawn, behind a switch). */
  readonly subgroupMatrix: boolean;
}

export interface OpenDevice {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  readonly device: GPUDevice;
  readonly features: WebgpuFeatures;
  /** The processor computes in the place of a card: for tests. */
  readonly software: boolean;
  /** Of the card and its driver, in words. */
  readonly title: string;
}

const FEATURES: Readonly<Record<keyof WebgpuFeatures, string>> = {
  f16: "shader-f16",
  subgroups: "subgroups",
  subgroupMatrix: "chromium-experimental-subgroup-matrix",
};

/** Without asking, a device has the least that every adapter offers: 128 MiB a binding, 8 bindings, 16 KiB a group. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "minStorageBufferOffsetAlignment",
  "minUniformBufferOffsetAlignment",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** In Node the process dies when one of these objects is collected while it is in use; while one is held, Node does not exit. */
const alive = new Set<OpenDevice>();

/** The adapter that the system prefers and a device with all that we use of it, or why there is none. */
export async function openDevice(gpu: GPU): Promise<{ open: OpenDevice } | { reason: string }> {
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { reason: `asking for a WebGPU adapter failed: ${firstLine(error)}` };
  }
  if (adapter === null)
    return { reason: "WebGPU has no adapter here: no graphics card with a Vulkan, Metal or D3D12 driver" };
  const has = (name: string) => adapter.features.has(name as GPUFeatureName);
  const requiredFeatures = Object.values(FEATURES).filter(has) as GPUFeatureName[];
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  } catch (error) {
    return { reason: `the WebGPU adapter ${titleOf(adapter.info)} gives no device: ${firstLine(error)}` };
  }
  const open: OpenDevice = {
    gpu,
    adapter,
    device,
    features: {
      f16: has(FEATURES.f16),
      subgroups: has(FEATURES.subgroups),
      subgroupMatrix: has(FEATURES.subgroupMatrix),
    },
    software: isSoftware(adapter.info),
    title: titleOf(adapter.info),
  };
  alive.add(open);
  return { open };
}

/** Destroys the device; Node may exit when all are closed. */
export function closeDevice(open: OpenDevice): void {
  if (!alive.has(open)) return;
  open.device.destroy();
  // Dawn turns once more for what it has to tell, on the instance that `gpu` holds
  void open.device.lost.then(() => setTimeout(() => alive.delete(open), 0));
}

function titleOf({ vendor, architecture, device, description }: GPUAdapterInfo): string {
  return description || [vendor, architecture, device].filter((word) => word !== "").join(" ") || "unnamed adapter";
}

function isSoftware(info: GPUAdapterInfo): boolean {
  return info.isFallbackAdapter || /swiftshader|llvmpipe|software/i.test(`${info.architecture} ${info.description}`);
}
