// cuBLAS that multiplies nothing: handles are counted, and any call can be made to fail.
#include <stddef.h>
#include <stdint.h>

static int handles, failing;

int fakeBlasHandles(void) { return handles; }
/** All calls give this status from now on; 0 for none. */
void fakeBlasFail(int status) { failing = status; }
void fakeBlasReset(void) { handles = failing = 0; }

int cublasCreate_v2(uint64_t *handle) {
  if (failing) return failing;
  handles++;
  *handle = 0x6600000001u;
  return 0;
}
int cublasDestroy_v2(uint64_t handle) {
  if (handle != 0x6600000001u) return 1;
  handles--;
  return 0;
}
int cublasGetVersion_v2(uint64_t handle, int *version) {
  (void)handle;
  *version = 120902;
  return 0;
}
const char *cublasGetStatusString(int status) { return status == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_ALLOC_FAILED"; }
int cublasSetStream_v2(uint64_t handle, uint64_t stream) { return handle && stream ? failing : 1; }
int cublasSetWorkspace_v2(uint64_t handle, uint64_t workspace, size_t bytes) { return handle && workspace && bytes ? failing : 1; }
int cublasGemmEx() { return failing; }
int cublasGemmStridedBatchedEx() { return failing; }
int cublasDsyrk_v2() { return failing; }
int cublasDtrsm_v2() { return failing; }
