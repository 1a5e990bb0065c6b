import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type CardFacts, type FakeCuda, fakeCuda, missingFakes, NOTHING_ALIVE } from "../../../test/fake-cuda/card.js";
import { BitwrightError } from "../../errors.js";
import type { F32 } from "../../tensor/index.js";
import type { Engine } from "../engine.js";
import { type CudaEngineOptions, createCudaEngine } from "./engine.js";

// What goes wrong on a card, on one that is not there: every failure is one of ours, says what to do, and leaves nothing behind.

const MEGA = 2 ** 20;
const made = await fakeCuda();

/** The error that a body throws, at once or later. */
async function failureOf(body: () => unknown): Promise<BitwrightError> {
  try {
    await body();
  } catch (error) {
    expect(error).toBeInstanceOf(BitwrightError);
    return error as BitwrightError;
  }
  throw new Error("nothing failed");
}

function tests(fake: FakeCuda): void {
  beforeEach(() => fake.reset());
  afterAll(fake.remove);

  /** An engine on a new card; afterwards everything must have been given back. */
  async function withEngine(
    { facts, ...options }: CudaEngineOptions & { facts?: CardFacts },
    body: (engine: Engine) => unknown,
  ): Promise<void> {
    fake.reset(facts);
    const found = await createCudaEngine(options);
    if ("reason" in found) throw new Error(found.reason);
    try {
      await body(found.engine);
    } finally {
      fake.heal();
      await found.engine.close();
    }
    expect(fake.alive()).toEqual(NOTHING_ALIVE);
  }

  describe("memory", () => {
    /** f32 elements of so many MiB: a size that the pool does not round up. */
    const elements = (megabytes: number) => [(megabytes * MEGA) / 4];

    it("that waits for another use is given back when the card is full, and the request tried again", () =>
      withEngine({}, (engine) => {
        engine.create(elements(112)).dispose();
        const freed = fake.count("cuMemFree_v2");
        expect(engine.create(elements(160)).bytes).toBe(160 * MEGA);
        expect(freed()).toBe(1);
      }));

    it("that is not there is refused by what was asked for and what is free, and the engine goes on", () =>
      withEngine({}, async (engine) => {
        const before = engine.liveBytes();
        engine.create(elements(64));
        const { kind, message, remedy } = await failureOf(() => engine.create(elements(192)));
        // 256 MiB, 32 of which cuBLAS has and 512 bytes the word for faults
        expect({ kind, message, remedy }).toEqual({
          kind: "memory",
          message: "the device has no room for 201 MB more: 67 MB are in use by this run and 168 MB are free",
          remedy: expect.stringMatching(/--engine wasm/),
        });
        expect(engine.liveBytes() - before).toBe(64 * MEGA);
        expect(await engine.read(engine.create([3]))).toEqual(new Float32Array(3));
      }));

    it("beyond the user's limit is refused although the card has it", () =>
      withEngine({ memoryLimit: 20 * MEGA }, async (engine) => {
        const first = engine.create(elements(16));
        const { message, remedy } = await failureOf(() => engine.create(elements(8)));
        expect(message).toMatch(/no room for 8 MB more: 17 MB are in use by this run, which may take 21 MB$/);
        expect(remedy).toMatch(/a larger --device-memory/);
        first.dispose();
        expect(engine.create(elements(8)).size).toBe(2 * MEGA);
      }));

    it("for a copy over itself that is not there is a refusal, too", () =>
      withEngine({}, async (engine) => {
        const tensor = engine.create(elements(160));
        const failure = await failureOf(() => engine.copyInto(tensor, engine.view(tensor, elements(128)), 1));
        expect(failure.kind).toBe("memory");
        expect(failure.message).toMatch(/no room for 134217728 bytes more/);
      }));
  });

  describe("an error of the driver is one of ours, with the driver's words and a remedy:", () => {
    it.each([
      [1, "CUDA_ERROR_INVALID_VALUE (invalid argument)", /bitwright doctor/],
      [100, "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)", /CUDA_VISIBLE_DEVICES/],
      [101, "CUDA_ERROR_INVALID_DEVICE (invalid device ordinal)", /--device/],
      [209, "CUDA_ERROR_NO_BINARY_FOR_GPU (no kernel image is available for execution on the device)", /cache/],
      [700, "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)", /can be resumed/],
      [719, "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)", /can be resumed/],
      [803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (system has unsupported display", /restart/],
      [12345, "error 12345 (error 12345)", /bitwright doctor/],
    ])("%i", (status, words, remedy) =>
      withEngine({}, async (engine) => {
        const a = engine.create([4]);
        fake.fail("cuLaunchKernel", status, { times: 1 });
        const failure = await failureOf(() => engine.scale(a, 2));
        expect(failure.kind).toBe("unsupported");
        expect(failure.message.startsWith(`cuLaunchKernel failed: ${words}`), failure.message).toBe(true);
        expect(failure.remedy).toMatch(remedy);
      }),
    );

    it("of cuBLAS", () =>
      withEngine({}, async (engine) => {
        const [a, b] = [engine.create([4, 4]), engine.create([4, 4])];
        fake.failBlas(13);
        const failure = await failureOf(() => engine.matmul(a, b));
        fake.failBlas(0);
        expect(failure).toMatchObject({
          kind: "unsupported",
          message: "cublasGemmEx failed: CUBLAS_STATUS_EXECUTION_FAILED",
          remedy: expect.stringMatching(/free memory on Small Card/),
        });
        expect(engine.matmul(a, b).shape).toEqual([4, 4]);
      }));
  });

  describe("a card that is lost in the middle", () => {
    const uses: [string, (engine: Engine, tensor: F32) => unknown][] = [
      ["launch", (engine, a) => engine.scale(a, 2)],
      ["upload", (engine) => engine.upload(new Float32Array(4), [4], "f32")],
      ["read", (engine, a) => engine.read(a)],
      ["write", (engine, a) => engine.write(a, new Float32Array(2))],
      ["copy", (engine, a) => engine.copy(a)],
      ["copy over itself", (engine, a) => engine.copyInto(a, engine.view(a, [3]), 1)],
      ["create", (engine) => engine.create([1000])],
    ];
    it.each([719, 999])("gives error %i of ours for every use, and the engine can still be closed", async (status) => {
      const { engine } = (await createCudaEngine()) as { engine: Engine };
      const tensor = engine.create([4]);
      engine.scale(tensor, 1);
      fake.fail("*", status);
      for (const [name, use] of uses) {
        const { kind, message } = await failureOf(() => use(engine, tensor));
        expect({ name, kind, message }).toEqual({
          name,
          kind: "unsupported",
          message: expect.stringMatching(/^cu\w+ failed: CUDA_ERROR_/),
        });
      }
      tensor.dispose();
      await engine.close(); // what failed was thrown; nothing may hide it in a `finally`
      await expect(engine.read(engine.keep(tensor))).rejects.toThrow(BitwrightError);
      fake.heal();
    });

    it("shows at the end, where nothing was asked for before, and the context is let go", async () => {
      const { engine } = (await createCudaEngine()) as { engine: Engine };
      engine.scale(engine.create([4]), 1);
      fake.fail("cuMemFree_v2", 719);
      expect((await failureOf(() => engine.close())).message).toMatch(/^cuMemFree failed: CUDA_ERROR_LAUNCH_FAILED/);
      expect(fake.alive().contexts).toBe(0);
    });
  });

  describe("an engine cannot be made", () => {
    const reasonOf = async (options: CudaEngineOptions = {}) => {
      const found = await createCudaEngine(options);
      return "reason" in found ? found.reason : "there is one";
    };

    it("with a driver that is too old", async () => {
      fake.reset({ version: 11080 });
      expect(await reasonOf()).toBe("the NVIDIA driver is too old: it knows CUDA 11.8, expected 12.0 or newer");
    });

    it("without a card", async () => {
      fake.reset({ cards: 0 });
      expect(await reasonOf()).toBe("the NVIDIA driver sees no card");
      fake.fail("cuInit", 100);
      expect(await reasonOf()).toMatch(/^cuInit failed: CUDA_ERROR_NO_DEVICE/);
    });

    it.each([2, -1, 0.5, 999])("on card %d of two", async (device) => {
      fake.reset({ cards: 2 });
      expect(await failureOf(() => createCudaEngine({ device }))).toMatchObject({
        kind: "usage",
        message: `device: expected a card from 0 to 1, got ${device}`,
        remedy: expect.stringMatching(/doctor/),
      });
    });

    it("but on the other card it can", () =>
      withEngine({ facts: { cards: 2 }, device: 1 }, ({ description }) =>
        expect(description).toMatch(/^Other Card, CUDA 12.8/),
      ));

    it("on a card before Ampere", async () => {
      fake.reset({ capability: [7, 5] });
      expect(await failureOf(createCudaEngine)).toMatchObject({
        kind: "unsupported",
        message: "Small Card has compute capability 7.5, expected 8.0 (Ampere) or newer",
      });
    });

    it("on a card that NVRTC does not know yet, by PTX", () =>
      withEngine({ facts: { capability: [12, 0] } }, async (engine) => {
        engine.scope(() => engine.scale(engine.create([4]), 2));
        await engine.read(engine.create([1]));
        expect(fake.launches().map(({ kernel }) => kernel)).toContain("scale");
      }));

    it.each([
      ["cuDevicePrimaryCtxRetain", 101, 0],
      ["cuStreamCreate", 2, 0],
      ["cuMemHostAlloc", 2, 5],
      ["cuEventCreate", 999, 2],
      ["cuMemAlloc_v2", 2, 0],
    ])("where %s fails, and nothing is left", async (fn, status, skip) => {
      fake.fail(fn, status, { skip, times: 1 });
      const { kind, message, remedy } = await failureOf(() => createCudaEngine());
      expect({ kind, message: message.length > 10, remedy: remedy !== undefined }).toEqual({
        kind: status === 2 ? "memory" : "unsupported",
        message: true,
        remedy: true,
      });
      expect(fake.alive().contexts).toBe(0);
    });

    it("where cuBLAS does not start, and nothing is left", async () => {
      fake.failBlas(3);
      const { message } = await failureOf(() => createCudaEngine());
      expect(message).toBe("cublasCreate failed: CUBLAS_STATUS_ALLOC_FAILED");
      expect(fake.alive()).toEqual(NOTHING_ALIVE);
    });
  });
}

if ("fake" in made) describe("failures of a card", () => tests(made.fake));
else
  it("says why there is no card to pretend", () => {
    expect(made.reason).toMatch(missingFakes);
    console.log(`Failures of CUDA were not tested without a card: ${made.reason}`);
  });
