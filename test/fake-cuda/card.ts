import { join } from "node:path";
import { env } from "node:process";
import { buildLibraries } from "./build.js";

// A card for tests: card.c, nvrtc.c and cublas.c in place of the driver and the toolkit, for the whole process.

export interface CardFacts {
  cards?: number;
  /** Of CUDA that the driver knows. */
  version?: number;
  capability?: [number, number];
  bytes?: number;
  /** The stream that does nothing before somebody waits for it; the other one does its work as early as it may. Default: "work". */
  late?: "work" | "uploads";
}

export interface Launch {
  kernel: string;
  grid: number[];
  block: number[];
  sharedBytes: number;
  arguments: DataView;
}

const KINDS = ["deviceMemory", "hostMemory", "streams", "events", "modules", "contexts"] as const;
export type Alive = Readonly<Record<(typeof KINDS)[number] | "blasHandles" | "programs", number>>;
export const NOTHING_ALIVE: Alive = {
  ...{ deviceMemory: 0, hostMemory: 0, streams: 0, events: 0, modules: 0, contexts: 0 },
  ...{ blasHandles: 0, programs: 0 },
};

export interface FakeCuda {
  /** A new card; whatever was alive is forgotten. */
  reset(facts?: CardFacts): void;
  /** The function ("*" for any) fails with a status, after `skip` calls, so many times (for ever by default). */
  fail(fn: string, status: number, options?: { skip?: number; times?: number }): void;
  heal(): void;
  /** Status of all calls of cuBLAS. */
  failBlas(status: number): void;
  /** Counts calls of a function from now on. */
  count(fn: string): () => number;
  alive(): Alive;
  /** Pieces of work on the same memory by two streams of which neither waits for the other. */
  races(): number;
  /** Is it an address within memory of the card? */
  holds(address: number): boolean;
  launches(): Launch[];
  /** Programs that NVRTC has compiled so far. */
  compiled(): number;
  /** Of the toolkit. */
  folder: string;
  remove(): void;
}

const MEGA = 2 ** 20;
const FOREVER = 2 ** 30;

/** Loads the fakes, so that `createCudaEngine` finds them; or says why that cannot be done here. */
export async function fakeCuda(): Promise<{ fake: FakeCuda } | { reason: string }> {
  const driver = "libcuda.so.1";
  const built = await buildLibraries({ card: driver, nvrtc: "libnvrtc.so.12", cublas: "libcublas.so.12" });
  if ("reason" in built) return built;
  const { koffi, folder, remove } = built;
  env.BITWRIGHT_CUDA = folder;
  env.BITWRIGHT_CACHE = join(folder, "cache");
  // asked for "libcuda.so.1", the loader gives the library of this name that is there already
  const card = koffi.load(join(folder, driver), { global: true });
  const nvrtc = koffi.load(join(folder, "libnvrtc.so.12"), { global: true });
  const cublas = koffi.load(join(folder, "libcublas.so.12"), { global: true });
  const reset = card.func("void fakeReset(int cards, int version, int major, int minor, uint64_t bytes, int late)");
  const fail = card.func("void fakeFail(const char *fn, int status, int skip, int times)");
  const count = card.func("void fakeCount(const char *fn)");
  const calls = card.func("int fakeCalls()");
  const races = card.func("int fakeRaces()");
  const holds = card.func("int fakeHolds(uint64_t address)");
  const alive = card.func("int fakeAlive(int kind)");
  const launches = card.func("int fakeLaunches()");
  const launch = card.func("const char *fakeLaunch(int at, uint32_t *numbers, uint8_t *arguments, uint64_t *stream)");
  const compiled = nvrtc.func("int fakeCompiled()");
  const programs = nvrtc.func("int fakePrograms()");
  const blasHandles = cublas.func("int fakeBlasHandles()");
  const resetBlas = cublas.func("void fakeBlasReset()");
  const failBlas = cublas.func("void fakeBlasFail(int status)");

  const fake: FakeCuda = {
    folder,
    remove,
    reset({ cards = 1, version = 12080, capability = [9, 0], bytes = 256 * MEGA, late = "work" } = {}) {
      reset(cards, version, ...capability, bytes, late === "work" ? 0 : 1);
      resetBlas();
    },
    fail: (fn, status, { skip = 0, times = FOREVER } = {}) => void fail(fn, status, skip, times),
    heal: () => void fail("", 0, 0, 0),
    failBlas: (status) => void failBlas(status),
    count(fn) {
      count(fn);
      return () => calls() as number;
    },
    alive: () => ({
      ...(Object.fromEntries(KINDS.map((name, kind) => [name, alive(kind) as number])) as Alive),
      blasHandles: blasHandles() as number,
      programs: programs() as number,
    }),
    races: () => races() as number,
    holds: (address) => holds(address) === 1,
    launches: () =>
      Array.from({ length: launches() as number }, (_, at) => {
        const [numbers, bytes] = [new Uint32Array(8), new Uint8Array(4096)];
        const kernel = launch(at, numbers, bytes, new BigUint64Array(1)) as string;
        const values = [...numbers];
        return {
          kernel,
          grid: values.slice(0, 3),
          block: values.slice(3, 6),
          sharedBytes: values[6],
          arguments: new DataView(bytes.buffer, 0, values[7]),
        };
      }),
    compiled: () => compiled() as number,
  };
  fake.reset();
  return { fake };
}

/** What stands in a test file where there are no fakes. */
export const missingFakes = /C compiler|Linux|koffi/;
