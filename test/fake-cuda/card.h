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
  uint64_t streams[2]; // the first two that were made
  int late; // which of them does nothing before somebody waits for it
  char failing[64];
  int status, skip, times;
  char counted[64];
  int count;
} card;

/** How far each stream was, as somebody knows it (Lamport's clocks, by stream). */
typedef struct {
  uint64_t of[2];
} Clock;

/** What is alive: an address and its bytes, or a handle. */
static struct {
  int kind;
  unsigned char *address;
  uint64_t bytes;
  Clock clock; // of memory: the last work of each stream on it; of an event: what its record is behind
} alive[MOST];

static Clock known[2], host; // to what each stream does next, and to the host
static int races;

static char *names[MOST]; // of kernels
static int named;

/** Work of the streams, in the order in which it came. */
enum { COPY, FILL, RECORD, WAIT };
typedef struct {
  int kind, done;
  uint64_t stream, to, from, bytes, event;
  unsigned char value;
  long record; // of a wait: the work that it waits for, -1 for none
} Work;
static Work *queue;
static long queued, room;

static struct {
  uint64_t function, stream;
  uint32_t grid[3], block[3], shared;
  uint32_t size;
  unsigned char arguments[ARGUMENTS];
} launches[LAUNCHES];
static int launched;

// ---- for the tests

void fakeReset(int cards, int version, int major, int minor, uint64_t bytes, int late) {
  memset(&card, 0, sizeof card);
  card.cards = cards;
  card.version = version;
  card.major = major;
  card.minor = minor;
  card.bytes = bytes;
  card.late = late;
  queued = 0;
  memset(alive, 0, sizeof alive);
  memset(known, 0, sizeof known);
  memset(&host, 0, sizeof host);
  races = 0;
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
/** Pieces of work on the same memory by two streams of which neither waits for the other. */
int fakeRaces(void) { return races; }
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
      memset(&alive[i].clock, 0, sizeof(Clock));
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

// ---- streams: each does its work in order, one of them as late as it may, the others as early as they may

static void perform(long at) {
  Work *work = &queue[at];
  if (work->kind == COPY) memcpy((void *)(uintptr_t)work->to, (void *)(uintptr_t)work->from, work->bytes);
  if (work->kind == FILL) memset((void *)(uintptr_t)work->to, work->value, work->bytes);
  work->done = 1;
}

/** Does a piece of work, and before it what its stream has before it and what these wait for. */
static void force(long at) {
  for (long i = 0; i <= at; i++) {
    if (queue[i].done || queue[i].stream != queue[at].stream) continue;
    if (queue[i].kind == WAIT && queue[i].record >= 0) force(queue[i].record);
    perform(i);
  }
}

static void forceStream(uint64_t stream) {
  for (long i = queued - 1; i >= 0; i--)
    if (queue[i].stream == stream) {
      force(i);
      return;
    }
}

static void forceAll(void) {
  for (long i = 0; i < queued; i++) force(i);
}

/** The last record of an event, -1 when there is none. */
static long recordOf(uint64_t event) {
  for (long i = queued - 1; i >= 0; i--)
    if (queue[i].kind == RECORD && queue[i].event == event) return i;
  return -1;
}

/** Work that waits for nothing is done at once, but for that of the late stream. */
static void proceed(void) {
  for (int again = 1; again;) {
    again = 0;
    for (long i = 0; i < queued; i++) {
      Work *work = &queue[i];
      if (work->done || work->stream == card.streams[card.late]) continue;
      int ready = work->kind != WAIT || work->record < 0 || queue[work->record].done;
      for (long before = 0; before < i && ready; before++) ready = queue[before].done || queue[before].stream != work->stream;
      if (!ready) continue;
      perform(i);
      again = 1;
    }
  }
}

static void learn(Clock *clock, Clock more) {
  for (int s = 0; s < 2; s++)
    if (clock->of[s] < more.of[s]) clock->of[s] = more.of[s];
}

static int placeOf(uint64_t stream) { return stream == card.streams[1]; }

/** A stream has more to do: behind all that it and the host know of. */
static void step(uint64_t stream) {
  int own = placeOf(stream);
  learn(&known[own], host);
  known[own].of[own]++;
}

/** The newest work of a stream is on this memory. */
static void touch(uint64_t stream, uint64_t address) {
  int own = placeOf(stream);
  for (int i = 0; i < MOST; i++) {
    uint64_t begin = (uint64_t)(uintptr_t)alive[i].address;
    if (!begin || alive[i].kind != DEVICE_MEMORY || address < begin || address >= begin + alive[i].bytes) continue;
    races += alive[i].clock.of[!own] > known[own].of[!own];
    alive[i].clock.of[own] = known[own].of[own];
  }
}

static int enqueue(Work work) {
  if (find(STREAMS, work.stream) < 0) return INVALID_HANDLE;
  step(work.stream);
  if (work.kind == RECORD) alive[find(EVENTS, work.event)].clock = known[placeOf(work.stream)];
  if (work.kind == WAIT) learn(&known[placeOf(work.stream)], alive[find(EVENTS, work.event)].clock);
  if (work.kind == COPY) touch(work.stream, work.from);
  if (work.kind == COPY || work.kind == FILL) touch(work.stream, work.to);
  int idle = 1;
  for (long i = 0; i < queued && idle; i++) idle = queue[i].done;
  if (idle) {
    queued = 0;
    work.record = -1;
  }
  if (queued == room) queue = realloc(queue, sizeof *queue * (size_t)(room = 2 * room + 64));
  queue[queued++] = work;
  proceed();
  return 0;
}

static int copy(int toKind, uint64_t to, int fromKind, uint64_t from, uint64_t bytes, uint64_t stream) {
  if (!within(toKind, to, bytes) || !within(fromKind, from, bytes)) return INVALID_VALUE;
  return enqueue((Work){.kind = COPY, .stream = stream, .to = to, .from = from, .bytes = bytes});
}
