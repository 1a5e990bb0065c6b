// Functions of the CUDA driver, NVRTC and cuBLAS with the signatures of NVIDIA's reference manuals (CUDA Driver API, NVRTC, cuBLAS;
// 12 and 13), which only note what arrived and fill what they are to fill. The tests call them through bindings.ts.
// Handles are pointers to structures that nobody sees; enumerations are ints.
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef int nvrtcResult;
typedef struct _nvrtcProgram *nvrtcProgram;
typedef int cublasStatus_t;
typedef struct cublasContext *cublasHandle_t;
typedef int cublasOperation_t;
typedef int cublasFillMode_t;
typedef int cublasSideMode_t;
typedef int cublasDiagType_t;
typedef int cublasComputeType_t;
typedef int cublasGemmAlgo_t;
typedef int cudaDataType;
typedef CUstream cudaStream_t;

static char noted[4096];
static int calls = 0x12340000;

/** What arrived in the last call, "name argument argument ..". */
const char *recorded(void) { return noted; }

/** Called before each: what is left in registers and on the stack is then from here, and an argument that is missing shows. */
double clobber(unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d, unsigned long long e,
               unsigned long long f, unsigned long long g, unsigned long long h, double x, double y, double z) {
  return (double)(a + b + c + d + e + f + g + h) + x + y + z;
}

/** Every call returns another number, of more than 16 bits, so that a result that is not passed on shows. */
static int note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(noted, sizeof noted, format, arguments);
  va_end(arguments);
  return ++calls;
}

static unsigned long long number(const void *pointer) { return (unsigned long long)(size_t)pointer; }
/** A handle that needs more than 32 bits. */
static void *handle(int which) { return (void *)(0x1234500000000ull + which); }

// ---- driver

CUresult cuInit(unsigned int Flags) { return note("cuInit %u", Flags); }
CUresult cuDriverGetVersion(int *driverVersion) {
  *driverVersion = 12034;
  return note("cuDriverGetVersion");
}
CUresult cuGetErrorName(CUresult error, const char **pStr) {
  *pStr = "ERROR_NAME";
  return note("cuGetErrorName %d", error);
}
CUresult cuGetErrorString(CUresult error, const char **pStr) {
  *pStr = "error text";
  return note("cuGetErrorString %d", error);
}
CUresult cuDeviceGetCount(int *count) {
  *count = -3;
  return note("cuDeviceGetCount");
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = 41;
  return note("cuDeviceGet %d", ordinal);
}
CUresult cuDeviceGetName(char *name, int len, CUdevice dev) {
  memcpy(name, "Card", 5);
  return note("cuDeviceGetName %d %d", len, dev);
}
CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev) {
  *pi = -5;
  return note("cuDeviceGetAttribute %d %d", attrib, dev);
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev) {
  *bytes = 0x123456789au;
  return note("cuDeviceTotalMem_v2 %d", dev);
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev) {
  *pctx = handle(1);
  return note("cuDevicePrimaryCtxRetain %d", dev);
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev) { return note("cuDevicePrimaryCtxRelease_v2 %d", dev); }
CUresult cuCtxSetCurrent(CUcontext ctx) { return note("cuCtxSetCurrent %llu", number(ctx)); }
CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = 0x200000001u;
  *total = 0x300000002u;
  return note("cuMemGetInfo_v2");
}
CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize) {
  *dptr = 0x7f0000000123u;
  return note("cuMemAlloc_v2 %zu", bytesize);
}
CUresult cuMemFree_v2(CUdeviceptr dptr) { return note("cuMemFree_v2 %llu", dptr); }
CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags) {
  *pp = handle(2);
  return note("cuMemHostAlloc %zu %u", bytesize, Flags);
}
CUresult cuMemFreeHost(void *p) { return note("cuMemFreeHost %llu", number(p)); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream) {
  return note("cuMemcpyHtoDAsync_v2 %llu %llu %zu %llu", dstDevice, number(srcHost), ByteCount, number(hStream));
}
CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream) {
  return note("cuMemcpyDtoHAsync_v2 %llu %llu %zu %llu", number(dstHost), srcDevice, ByteCount, number(hStream));
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream) {
  return note("cuMemcpyDtoDAsync_v2 %llu %llu %zu %llu", dstDevice, srcDevice, ByteCount, number(hStream));
}
CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream) {
  return note("cuMemsetD8Async %llu %u %zu %llu", dstDevice, uc, N, number(hStream));
}
CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags) {
  *phStream = handle(3);
  return note("cuStreamCreate %u", Flags);
}
CUresult cuStreamSynchronize(CUstream hStream) { return note("cuStreamSynchronize %llu", number(hStream)); }
CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags) {
  return note("cuStreamWaitEvent %llu %llu %u", number(hStream), number(hEvent), Flags);
}
CUresult cuStreamDestroy_v2(CUstream hStream) { return note("cuStreamDestroy_v2 %llu", number(hStream)); }
CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags) {
  *phEvent = handle(4);
  return note("cuEventCreate %u", Flags);
}
CUresult cuEventRecord(CUevent hEvent, CUstream hStream) {
  return note("cuEventRecord %llu %llu", number(hEvent), number(hStream));
}
CUresult cuEventSynchronize(CUevent hEvent) { return note("cuEventSynchronize %llu", number(hEvent)); }
CUresult cuEventDestroy_v2(CUevent hEvent) { return note("cuEventDestroy_v2 %llu", number(hEvent)); }
CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd) {
  *pMilliseconds = 2.5f;
  return note("cuEventElapsedTime %llu %llu", number(hStart), number(hEnd));
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = handle(5);
  return note("cuModuleLoadData %02x%02x%02x", ((const unsigned char *)image)[0], ((const unsigned char *)image)[1],
              ((const unsigned char *)image)[2]);
}
CUresult cuModuleUnload(CUmodule hmod) { return note("cuModuleUnload %llu", number(hmod)); }
CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name) {
  *hfunc = handle(6);
  return note("cuModuleGetFunction %llu %s", number(hmod), name);
}
CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ, unsigned int blockDimX,
                        unsigned int blockDimY, unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                        void **kernelParams, void **extra) {
  return note("cuLaunchKernel %llu %u %u %u %u %u %u %u %llu %llu %llu", number(f), gridDimX, gridDimY, gridDimZ, blockDimX,
              blockDimY, blockDimZ, sharedMemBytes, number(hStream), number(kernelParams), number(extra));
}

// ---- NVRTC

nvrtcResult nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 2;
  return note("nvrtcVersion");
}
const char *nvrtcGetErrorString(nvrtcResult result) {
  note("nvrtcGetErrorString %d", result);
  return "an NVRTC error";
}
nvrtcResult nvrtcCreateProgram(nvrtcProgram *prog, const char *src, const char *name, int numHeaders, const char *const *headers,
                               const char *const *includeNames) {
  *prog = handle(7);
  return note("nvrtcCreateProgram %s %s %d %s %s %s", src, name, numHeaders, headers ? headers[0] : "none",
              headers ? headers[1] : "none", includeNames ? includeNames[1] : "none");
}
nvrtcResult nvrtcCompileProgram(nvrtcProgram prog, int numOptions, const char *const *options) {
  return note("nvrtcCompileProgram %llu %d %s %s", number(prog), numOptions, options[0], options[1]);
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram prog, size_t *logSizeRet) {
  *logSizeRet = 0x500000005u;
  return note("nvrtcGetProgramLogSize %llu", number(prog));
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram prog, char *log) {
  memcpy(log, "log", 4);
  return note("nvrtcGetProgramLog %llu", number(prog));
}
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram prog, size_t *cubinSizeRet) {
  *cubinSizeRet = 0x600000006u;
  return note("nvrtcGetCUBINSize %llu", number(prog));
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram prog, char *cubin) {
  memcpy(cubin, "\x7f" "ELF", 4);
  return note("nvrtcGetCUBIN %llu", number(prog));
}
nvrtcResult nvrtcGetPTXSize(nvrtcProgram prog, size_t *ptxSizeRet) {
  *ptxSizeRet = 0x700000007u;
  return note("nvrtcGetPTXSize %llu", number(prog));
}
nvrtcResult nvrtcGetPTX(nvrtcProgram prog, char *ptx) {
  memcpy(ptx, "ptx", 4);
  return note("nvrtcGetPTX %llu", number(prog));
}
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *prog) {
  int result = note("nvrtcDestroyProgram %llu", number(*prog));
  *prog = 0;
  return result;
}
nvrtcResult nvrtcGetNumSupportedArchs(int *numArchs) {
  *numArchs = 2;
  return note("nvrtcGetNumSupportedArchs");
}
nvrtcResult nvrtcGetSupportedArchs(int *supportedArchs) {
  supportedArchs[0] = 80;
  supportedArchs[1] = 90;
  return note("nvrtcGetSupportedArchs");
}

// ---- cuBLAS

cublasStatus_t cublasCreate_v2(cublasHandle_t *h) {
  *h = handle(8);
  return note("cublasCreate_v2");
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) { return note("cublasDestroy_v2 %llu", number(h)); }
cublasStatus_t cublasGetVersion_v2(cublasHandle_t h, int *version) {
  *version = 120402;
  return note("cublasGetVersion_v2 %llu", number(h));
}
const char *cublasGetStatusString(cublasStatus_t status) {
  note("cublasGetStatusString %d", status);
  return "a cuBLAS status";
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t streamId) {
  return note("cublasSetStream_v2 %llu %llu", number(h), number(streamId));
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *workspace, size_t workspaceSizeInBytes) {
  return note("cublasSetWorkspace_v2 %llu %llu %zu", number(h), number(workspace), workspaceSizeInBytes);
}
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                            const void *alpha, const void *A, cudaDataType Atype, int lda, const void *B, cudaDataType Btype,
                            int ldb, const void *beta, void *C, cudaDataType Ctype, int ldc, cublasComputeType_t computeType,
                            cublasGemmAlgo_t algo) {
  return note("cublasGemmEx %llu %d %d %d %d %d %g %llu %d %d %llu %d %d %g %llu %d %d %d %d", number(h), transa, transb, m, n, k,
              *(const float *)alpha, number(A), Atype, lda, number(B), Btype, ldb, *(const float *)beta, number(C), Ctype, ldc,
              computeType, algo);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                                          const void *alpha, const void *A, cudaDataType Atype, int lda, long long int strideA,
                                          const void *B, cudaDataType Btype, int ldb, long long int strideB, const void *beta,
                                          void *C, cudaDataType Ctype, int ldc, long long int strideC, int batchCount,
                                          cublasComputeType_t computeType, cublasGemmAlgo_t algo) {
  return note("cublasGemmStridedBatchedEx %llu %d %d %d %d %d %g %llu %d %d %lld %llu %d %d %lld %g %llu %d %d %lld %d %d %d",
              number(h), transa, transb, m, n, k, *(const float *)alpha, number(A), Atype, lda, strideA, number(B), Btype, ldb,
              strideB, *(const float *)beta, number(C), Ctype, ldc, strideC, batchCount, computeType, algo);
}
cublasStatus_t cublasDsyrk_v2(cublasHandle_t h, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k, const double *alpha,
                              const double *A, int lda, const double *beta, double *C, int ldc) {
  return note("cublasDsyrk_v2 %llu %d %d %d %d %g %llu %d %g %llu %d", number(h), uplo, trans, n, k, *alpha, number(A), lda, *beta,
              number(C), ldc);
}
cublasStatus_t cublasDtrsm_v2(cublasHandle_t h, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t trans,
                              cublasDiagType_t diag, int m, int n, const double *alpha, const double *A, int lda, double *B,
                              int ldb) {
  return note("cublasDtrsm_v2 %llu %d %d %d %d %d %d %g %llu %d %llu %d", number(h), side, uplo, trans, diag, m, n, *alpha,
              number(A), lda, number(B), ldb);
}
