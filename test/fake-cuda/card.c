// The CUDA driver of a small card that keeps its memory in the host's: copies and fills are work of their streams, of which one does
// it as late as a real card may, the others as early; kernels are noted and not run. What is given to it is checked: an address
// outside an allocation or a handle that is not there is an error, as of a real driver. Everything handed out is counted, and any
// function can be made to fail.
#define _DEFAULT_SOURCE
#include "card.h"
#include <sys/mman.h>

/** Is it an address within memory of the card? */
int fakeHolds(uint64_t address) { return within(DEVICE_MEMORY, address, 1); }

// ---- CUDA Driver API

int cuInit(unsigned flags) {
  ENTER;
  return flags == 0 ? 0 : INVALID_VALUE;
}
int cuDriverGetVersion(int *version) {
  ENTER;
  *version = card.version;
  return 0;
}
static const struct {
  int status;
  const char *name, *text;
} ERRORS[] = {
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
int cuGetErrorName(int error, const char **text) {
  *text = NULL;
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (ERRORS[i].status == error) *text = ERRORS[i].name;
  return *text ? 0 : INVALID_VALUE;
}
int cuGetErrorString(int error, const char **text) {
  *text = NULL;
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (ERRORS[i].status == error) *text = ERRORS[i].text;
  return *text ? 0 : INVALID_VALUE;
}
int cuDeviceGetCount(int *count) {
  ENTER;
  *count = card.cards;
  return 0;
}
int cuDeviceGet(int *device, int ordinal) {
  ENTER;
  *device = ordinal + 40;
  return ordinal >= 0 && ordinal < card.cards ? 0 : INVALID_DEVICE;
}
static int isDevice(int device) { return device >= 40 && device < 40 + card.cards; }
int cuDeviceGetName(char *name, int length, int device) {
  ENTER;
  if (!isDevice(device)) return INVALID_DEVICE;
  strncpy(name, device == 40 ? "Small Card" : "Other Card", (size_t)length);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  ENTER;
  if (!isDevice(device)) return INVALID_DEVICE;
  *value = attribute == 75 ? card.major : attribute == 76 ? card.minor : attribute == 16 ? 3 : 0;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  ENTER;
  *bytes = card.bytes;
  return isDevice(device) ? 0 : INVALID_DEVICE;
}
int cuDevicePrimaryCtxRetain(uint64_t *context, int device) {
  ENTER;
  return isDevice(device) ? newHandle(CONTEXTS, context) : INVALID_DEVICE;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER;
  for (int i = 0; i < MOST && isDevice(device); i++)
    if (alive[i].address && alive[i].kind == CONTEXTS) {
      alive[i].address = NULL;
      return 0;
    }
  return INVALID_DEVICE;
}
int cuCtxSetCurrent(uint64_t context) {
  ENTER;
  return find(CONTEXTS, context) >= 0 ? 0 : INVALID_HANDLE;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  ENTER;
  *free = card.bytes - card.used;
  *total = card.bytes;
  return 0;
}
int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  ENTER;
  if (bytes == 0) return INVALID_VALUE;
  if (card.used + bytes > card.bytes) return OUT_OF_MEMORY;
  // mapped, because that needs more than 32 bits of an address
  unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return OUT_OF_MEMORY;
  memset(memory, 0xa5, bytes); // nothing may count on zeros
  card.used += bytes;
  born(DEVICE_MEMORY, memory, bytes);
  *pointer = (uint64_t)(uintptr_t)memory;
  return 0;
}
int cuMemFree_v2(uint64_t pointer) {
  ENTER;
  int i = find(DEVICE_MEMORY, pointer);
  if (i < 0) return INVALID_VALUE;
  forceAll(); // a real driver waits, too
  for (int s = 0; s < 2; s++) learn(&host, known[s]);
  card.used -= alive[i].bytes;
  munmap(alive[i].address, alive[i].bytes);
  alive[i].address = NULL;
  return 0;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  ENTER;
  if (flags != 0) return INVALID_VALUE;
  *address = malloc(bytes);
  born(HOST_MEMORY, *address, bytes);
  return 0;
}
int cuMemFreeHost(void *address) {
  ENTER;
  int i = find(HOST_MEMORY, (uint64_t)(uintptr_t)address);
  if (i < 0) return INVALID_VALUE;
  forceAll();
  free(alive[i].address);
  alive[i].address = NULL;
  return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  ENTER;
  return copy(DEVICE_MEMORY, to, HOST_MEMORY, from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  ENTER;
  return copy(HOST_MEMORY, to, DEVICE_MEMORY, from, bytes, stream);
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  ENTER;
  uint64_t apart = to > from ? to - from : from - to;
  if (apart < bytes) return INVALID_VALUE; // the result of a copy over itself is undefined
  return copy(DEVICE_MEMORY, to, DEVICE_MEMORY, from, bytes, stream);
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, uint64_t stream) {
  ENTER;
  if (!within(DEVICE_MEMORY, to, count)) return INVALID_VALUE;
  return enqueue((Work){.kind = FILL, .stream = stream, .to = to, .bytes = count, .value = value});
}
int cuStreamCreate(uint64_t *stream, unsigned flags) {
  ENTER;
  if (flags != 1) return INVALID_VALUE;
  newHandle(STREAMS, stream);
  card.streams[card.streams[0] != 0] = *stream;
  return 0;
}
int cuStreamSynchronize(uint64_t stream) {
  ENTER;
  if (find(STREAMS, stream) < 0) return INVALID_HANDLE;
  forceStream(stream);
  learn(&host, known[placeOf(stream)]);
  return 0;
}
int cuStreamWaitEvent(uint64_t stream, uint64_t event, unsigned flags) {
  ENTER;
  if (find(EVENTS, event) < 0) return INVALID_HANDLE;
  if (flags != 0) return INVALID_VALUE;
  return enqueue((Work){.kind = WAIT, .stream = stream, .event = event, .record = recordOf(event)});
}
int cuStreamDestroy_v2(uint64_t stream) {
  ENTER;
  return endHandle(STREAMS, stream);
}
int cuEventCreate(uint64_t *event, unsigned flags) {
  ENTER;
  return flags == 2 ? newHandle(EVENTS, event) : INVALID_VALUE;
}
int cuEventRecord(uint64_t event, uint64_t stream) {
  ENTER;
  if (find(EVENTS, event) < 0) return INVALID_HANDLE;
  return enqueue((Work){.kind = RECORD, .stream = stream, .event = event});
}
int cuEventSynchronize(uint64_t event) {
  ENTER;
  if (find(EVENTS, event) < 0) return INVALID_HANDLE;
  long record = recordOf(event);
  if (record >= 0) force(record);
  learn(&host, alive[find(EVENTS, event)].clock);
  return 0;
}
int cuEventDestroy_v2(uint64_t event) {
  ENTER;
  return endHandle(EVENTS, event);
}
int cuEventElapsedTime(float *milliseconds, uint64_t begin, uint64_t end) {
  ENTER;
  *milliseconds = 0;
  return find(EVENTS, begin) >= 0 && find(EVENTS, end) >= 0 ? 0 : INVALID_HANDLE;
}
/** An image is what nvrtc.c makes: ELF's mark, 64 bytes, and the source. */
int cuModuleLoadData(uint64_t *module, const char *image) {
  ENTER;
  int known = memcmp(image, "\x7f" "ELF", 4) == 0 || strncmp(image, "//\n.version", 11) == 0; // machine code or PTX
  return known ? newHandle(MODULES, module) : 209;
}
int cuModuleUnload(uint64_t module) {
  ENTER;
  return endHandle(MODULES, module);
}
int cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name) {
  ENTER;
  if (find(MODULES, module) < 0) return INVALID_HANDLE;
  *function = 0x70000000000u + (uint64_t)named;
  names[named] = malloc(strlen(name) + 1);
  strcpy(names[named++], name);
  return 0;
}
int cuLaunchKernel(uint64_t function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,
                   unsigned blockZ, unsigned shared, uint64_t stream, void **parameters, void **extra) {
  ENTER;
  if (function < 0x70000000000u || function >= 0x70000000000u + (uint64_t)named) return INVALID_HANDLE;
  if (find(STREAMS, stream) < 0) return INVALID_HANDLE;
  if (parameters || gridX == 0 || gridX > 0x7fffffff || blockX == 0 || blockX * blockY * blockZ > 1024) return INVALID_VALUE;
  const unsigned char *arguments = NULL;
  size_t size = 0;
  // CU_LAUNCH_PARAM_END 0, _BUFFER_POINTER 1, _BUFFER_SIZE 2, each with an address behind it
  for (; *extra != NULL; extra += 2) {
    if (*extra == (void *)1) arguments = extra[1];
    else if (*extra == (void *)2) size = *(size_t *)extra[1];
    else return INVALID_VALUE;
  }
  if (!arguments || size > ARGUMENTS) return INVALID_VALUE;
  int at = launched++ % LAUNCHES;
  launches[at].function = function;
  launches[at].stream = stream;
  uint32_t grid[] = {gridX, gridY, gridZ}, block[] = {blockX, blockY, blockZ};
  memcpy(launches[at].grid, grid, sizeof grid);
  memcpy(launches[at].block, block, sizeof block);
  launches[at].shared = shared;
  launches[at].size = (uint32_t)size;
  memcpy(launches[at].arguments, arguments, size);
  step(stream);
  for (size_t word = 0; word + 8 <= size; word += 8) {
    uint64_t address;
    memcpy(&address, arguments + word, 8);
    touch(stream, address); // a number is no address of the card
  }
  return 0;
}
