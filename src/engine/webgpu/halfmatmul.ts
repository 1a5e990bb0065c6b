import type { OpenDevice } from "./adapter.js";

// Products with operands rounded to f16 and f32 sums (kernels matmulPacked and matmulHalf): what the adapter must offer for them.

/** Of Chromium's experiment; not yet in the types of WebGPU. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Bytes of a group's tiles and sums in matmulHalf; those of matmulPacked are fewer. */
const WORKGROUP_BYTES = 2 * 2 * 32 * 136 + 4 * 8 * 256;

/** Why there are none; undefined where there are. */
export function whyNoHalfProducts({ adapter, device, features }: OpenDevice): string | undefined {
  if (!features.f16 || !features.subgroupMatrix)
    return "it has no shader-f16, or no chromium-experimental-subgroup-matrix (behind a switch in Chromium)";
  const { subgroupMinSize, subgroupMaxSize } = adapter.info;
  if (subgroupMinSize !== 32 || subgroupMaxSize !== 32)
    return `its subgroups have ${subgroupMinSize} to ${subgroupMaxSize} threads instead of 32`;
  const configs = (adapter.info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> }).subgroupMatrixConfigs ?? [];
  const fits = ({ componentType, resultComponentType, M, N, K }: MatrixConfig) =>
    componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16;
  if (![...configs].some(fits)) return "it has no products of 16 x 16 x 16 in f16 with sums in f32";
  if (device.limits.maxComputeWorkgroupStorageSize < WORKGROUP_BYTES) return "its groups have too little memory";
  return undefined;
}
