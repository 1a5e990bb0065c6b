import type { Library, NativeFunction } from "../koffi.js";

// Every foreign function that the engine calls, with its prototype. A wrong one is a crash, so they are all here, and
// `bindings.test.ts` calls each on a library made for it. Handles, device pointers and host addresses are uint64_t.
// Sources: CUDA Driver API, NVRTC and cuBLAS reference manuals, version 12 and 13.

export const DRIVER = {
  cuInit: "int cuInit(unsigned int flags)",
  cuDriverGetVersion: "int cuDriverGetVersion(int *version)",
  cuGetErrorName: "int cuGetErrorName(int error, _Out_ const char **text)",
  cuGetErrorString: "int cuGetErrorString(int error, _Out_ const char **text)",
  cuDeviceGetCount: "int cuDeviceGetCount(int *count)",
  cuDeviceGet: "int cuDeviceGet(int *device, int ordinal)",
  cuDeviceGetName: "int cuDeviceGetName(uint8_t *name, int length, int device)",
  cuDeviceGetAttribute: "int cuDeviceGetAttribute(int *value, int attribute, int device)",
  cuDeviceTotalMem: "int cuDeviceTotalMem_v2(uint64_t *bytes, int device)",
  cuDevicePrimaryCtxRetain: "int cuDevicePrimaryCtxRetain(uint64_t *context, int device)",
  cuDevicePrimaryCtxRelease: "int cuDevicePrimaryCtxRelease_v2(int device)",
  cuCtxSetCurrent: "int cuCtxSetCurrent(uint64_t context)",
  cuMemGetInfo: "int cuMemGetInfo_v2(uint64_t *free, uint64_t *total)",
  cuMemAlloc: "int cuMemAlloc_v2(uint64_t *pointer, uint64_t bytes)",
  cuMemFree: "int cuMemFree_v2(uint64_t pointer)",
  cuMemHostAlloc: "int cuMemHostAlloc(uint64_t *address, uint64_t bytes, unsigned int flags)",
  cuMemFreeHost: "int cuMemFreeHost(uint64_t address)",
  cuMemcpyHtoDAsync: "int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, uint64_t bytes, uint64_t stream)",
  cuMemcpyDtoHAsync: "int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, uint64_t bytes, uint64_t stream)",
  cuMemcpyDtoDAsync: "int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, uint64_t bytes, uint64_t stream)",
  cuMemsetD8Async: "int cuMemsetD8Async(uint64_t to, uint8_t value, uint64_t count, uint64_t stream)",
  cuStreamCreate: "int cuStreamCreate(uint64_t *stream, unsigned int flags)",
  cuStreamSynchronize: "int cuStreamSynchronize(uint64_t stream)",
  cuStreamWaitEvent: "int cuStreamWaitEvent(uint64_t stream, uint64_t event, unsigned int flags)",
  cuStreamDestroy: "int cuStreamDestroy_v2(uint64_t stream)",
  cuEventCreate: "int cuEventCreate(uint64_t *event, unsigned int flags)",
  cuEventRecord: "int cuEventRecord(uint64_t event, uint64_t stream)",
  cuEventSynchronize: "int cuEventSynchronize(uint64_t event)",
  cuEventDestroy: "int cuEventDestroy_v2(uint64_t event)",
  cuEventElapsedTime: "int cuEventElapsedTime(float *milliseconds, uint64_t begin, uint64_t end)",
  cuModuleLoadData: "int cuModuleLoadData(uint64_t *module, const uint8_t *image)",
  cuModuleUnload: "int cuModuleUnload(uint64_t module)",
  cuModuleGetFunction: "int cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name)",
  cuLaunchKernel:
    "int cuLaunchKernel(uint64_t function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, " +
    "unsigned int blockX, unsigned int blockY, unsigned int blockZ, unsigned int sharedBytes, uint64_t stream, " +
    "uint64_t parameters, uint64_t extra)",
} as const;

export const NVRTC = {
  nvrtcVersion: "int nvrtcVersion(int *major, int *minor)",
  nvrtcGetErrorString: "const char *nvrtcGetErrorString(int error)",
  nvrtcCreateProgram:
    "int nvrtcCreateProgram(uint64_t *program, const char *source, const char *name, int count, const char **headers, " +
    "const char **names)",
  nvrtcCompileProgram: "int nvrtcCompileProgram(uint64_t program, int count, const char **options)",
  nvrtcGetProgramLogSize: "int nvrtcGetProgramLogSize(uint64_t program, uint64_t *bytes)",
  nvrtcGetProgramLog: "int nvrtcGetProgramLog(uint64_t program, uint8_t *log)",
  nvrtcGetCUBINSize: "int nvrtcGetCUBINSize(uint64_t program, uint64_t *bytes)",
  nvrtcGetCUBIN: "int nvrtcGetCUBIN(uint64_t program, uint8_t *image)",
  nvrtcGetPTXSize: "int nvrtcGetPTXSize(uint64_t program, uint64_t *bytes)",
  nvrtcGetPTX: "int nvrtcGetPTX(uint64_t program, uint8_t *text)",
  nvrtcDestroyProgram: "int nvrtcDestroyProgram(uint64_t *program)",
  nvrtcGetNumSupportedArchs: "int nvrtcGetNumSupportedArchs(int *count)",
  nvrtcGetSupportedArchs: "int nvrtcGetSupportedArchs(int *architectures)",
} as const;

export const CUBLAS = {
  cublasCreate: "int cublasCreate_v2(uint64_t *handle)",
  cublasDestroy: "int cublasDestroy_v2(uint64_t handle)",
  cublasGetVersion: "int cublasGetVersion_v2(uint64_t handle, int *version)",
  cublasGetStatusString: "const char *cublasGetStatusString(int status)",
  cublasSetStream: "int cublasSetStream_v2(uint64_t handle, uint64_t stream)",
  cublasSetWorkspace: "int cublasSetWorkspace_v2(uint64_t handle, uint64_t workspace, uint64_t bytes)",
  cublasGemmEx:
    "int cublasGemmEx(uint64_t handle, int transA, int transB, int m, int n, int k, const void *alpha, uint64_t a, " +
    "int typeA, int lda, uint64_t b, int typeB, int ldb, const void *beta, uint64_t c, int typeC, int ldc, int compute, " +
    "int algorithm)",
  cublasGemmStridedBatchedEx:
    "int cublasGemmStridedBatchedEx(uint64_t handle, int transA, int transB, int m, int n, int k, const void *alpha, " +
    "uint64_t a, int typeA, int lda, int64_t strideA, uint64_t b, int typeB, int ldb, int64_t strideB, " +
    "const void *beta, uint64_t c, int typeC, int ldc, int64_t strideC, int count, int compute, int algorithm)",
  cublasDsyrk:
    "int cublasDsyrk_v2(uint64_t handle, int uplo, int trans, int n, int k, const double *alpha, uint64_t a, int lda, " +
    "const double *beta, uint64_t c, int ldc)",
  cublasDtrsm:
    "int cublasDtrsm_v2(uint64_t handle, int side, int uplo, int trans, int diag, int m, int n, const double *alpha, " +
    "uint64_t a, int lda, uint64_t b, int ldb)",
} as const;

export type Functions<Table> = { readonly [Name in keyof Table]: NativeFunction };

/** All functions of a table, from a library. Throws where one is missing: the library is too old. */
export function bind<Table extends Readonly<Record<string, string>>>(library: Library, table: Table): Functions<Table> {
  const bound = Object.entries(table).map(([name, prototype]) => [name, library.func(prototype)]);
  return Object.fromEntries(bound) as Functions<Table>;
}
