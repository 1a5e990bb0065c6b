// What the card of card.c keeps: its memory, everything that is alive, what was launched, and which function is to fail.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_HANDLE = 400, NOT_FOUND = 500 };
enum { DEVICE_MEMORY, HOST_MEMORY, STREAMS, EVENTS, MODULES, CONTEXTS, KINDS };
enum { MOST = 4096, LAUNCHES = 64, ARGUMENTS = 4096 };

static struct {
  int cards, version, major, minor;
  uint64_t bytes, used;
  char failing[64];
  int status, skip, times;
  char counted[64];
  int count;
} card;

/** What is alive: an address and its bytes, or a handle. */
static struct {
  int kind;
  unsigned char *address;
  uint64_t bytes;
} alive[MOST];

static char *names[MOST]; // of kernels
static int named;

static struct {
  uint64_t function, stream;
  uint32_t grid[3], block[3], shared;
  uint32_t size;
  unsigned char arguments[ARGUMENTS];
} launches[LAUNCHES];
static int launched;

// ---- for the tests

void fakeReset(int cards, int version, int major, int minor, uint64_t bytes) {
  memset(&card, 0, sizeof card);
  card.cards = cards;
  card.version = version;
  card.major = major;
  card.minor = minor;
  card.bytes = bytes;
  memset(alive, 0, sizeof alive);
  launched = 0;
}
/** From its next call but `skip` on, `function` ("*" for any) fails so many times. */
void fakeFail(const char *function, int status, int skip, int times) {
  strncpy(card.failing, function, sizeof card.failing - 1);
  card.status = status;
  card.skip = skip;
  card.times = times;
}
void fakeCount(const char *function) {
  strncpy(card.counted, function, sizeof card.counted - 1);
  card.count = 0;
}
int fakeCalls(void) { return card.count; }
int fakeAlive(int kind) {
  int count = 0;
  for (int i = 0; i < MOST; i++) count += alive[i].address && alive[i].kind == kind;
  return count;
}
int fakeLaunches(void) { return launched; }
/** { grid, block, shared, bytes of arguments } and the arguments of a launch; returns the kernel's name. */
const char *fakeLaunch(int index, uint32_t *numbers, unsigned char *arguments, uint64_t *stream) {
  memcpy(numbers, launches[index].grid, 12);
  memcpy(numbers + 3, launches[index].block, 12);
  numbers[6] = launches[index].shared;
  numbers[7] = launches[index].size;
  memcpy(arguments, launches[index].arguments, launches[index].size);
  *stream = launches[index].stream;
  return names[launches[index].function & 0xfff];
}

// ---- within

#define ENTER                          \
  do {                                 \
    int status = entered(__func__);    \
    if (status != 0) return status;    \
  } while (0)

static int entered(const char *function) {
  if (strcmp(function, card.counted) == 0) card.count++;
  if (card.times == 0 || (card.failing[0] != '*' && strcmp(function, card.failing) != 0)) return 0;
  if (card.skip > 0) {
    card.skip--;
    return 0;
  }
  card.times--;
  return card.status;
}

static int born(int kind, unsigned char *address, uint64_t bytes) {
  for (int i = 0; i < MOST; i++)
    if (!alive[i].address) {
      alive[i].kind = kind;
      alive[i].address = address;
      alive[i].bytes = bytes;
      return i;
    }
  abort();
}

static int find(int kind, uint64_t address) {
  for (int i = 0; i < MOST; i++)
    if (alive[i].address == (unsigned char *)(uintptr_t)address && address && alive[i].kind == kind) return i;
  return -1;
}

/** Handles need more than 32 bits, and each kind has its own. */
static int newHandle(int kind, uint64_t *handle) {
  static uint64_t made;
  *handle = ((uint64_t)(kind + 0x51) << 36) + ++made;
  born(kind, (unsigned char *)(uintptr_t)*handle, 0);
  return 0;
}

static int endHandle(int kind, uint64_t handle) {
  int i = find(kind, handle);
  if (i < 0) return INVALID_HANDLE;
  alive[i].address = NULL;
  return 0;
}

/** Does [address, address + bytes) lie within one allocation? */
static int within(int kind, uint64_t address, uint64_t bytes) {
  for (int i = 0; i < MOST; i++) {
    uint64_t begin = (uint64_t)(uintptr_t)alive[i].address;
    if (begin && alive[i].kind == kind && address >= begin && address + bytes <= begin + alive[i].bytes) return 1;
  }
  return 0;
}

static int copy(int toKind, uint64_t to, int fromKind, uint64_t from, uint64_t bytes, uint64_t stream) {
  if (!within(toKind, to, bytes) || !within(fromKind, from, bytes)) return INVALID_VALUE;
  if (find(STREAMS, stream) < 0) return INVALID_HANDLE;
  memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
  return 0;
}
