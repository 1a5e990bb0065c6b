import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { createRandom } from "../../random.js";
import { roundToF16 } from "../../tensor/index.js";
import type { KernelDeclaration } from "../device/device.js";
import { DeviceMemory } from "../device/memory.js";
import { kernelSections } from "../device/sources.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { KERNEL_FILES } from "./kernels.generated.js";

// What kernels/lib.wgsl and the logarithms of kernels/loss.wgsl promise whatever the driver makes of f32, against f64.

/** Relative error of double-float arithmetic. */
const DOUBLE = 2 ** -44;
/** Relative error of e^x, and error of logarithms, in f32. */
const [EXP, LOG] = [2e-7, 1e-7];

/** Functions of two double-floats a and b, made of the f32 a.x, a.y, b.x, b.y. */
const FUNCTIONS = {
  twoSum: "twoSum(a.x, b.x)",
  twoProduct: "twoProduct(a.x, b.x)",
  doubleAdd: "doubleAdd(a, b)",
  doubleAddFloat: "doubleAddFloat(a, b.x)",
  doubleMultiply: "doubleMultiply(a, b)",
  doubleMultiplyFloat: "doubleMultiplyFloat(a, b.x)",
  doubleDivide: "doubleDivide(a, b)",
  doubleSqrt: "doubleSqrt(a * sign(a.x))",
  divideRounded: "Double(divideRounded(a.x, b.x), 0.0)",
  lifted: "Double(lifted(a.x), 0.0)",
  lowered: "Double(lowered(a.x), 0.0)",
  roundToHalf: "Double(roundToHalf(a.x), 0.0)",
  expAccurate: "Double(expAccurate(a.x), 0.0)",
  logAccurate: "Double(logAccurate(abs(a.x)), 0.0)",
  logRatio: "Double(logRatio(abs(a.x), abs(b.x)), 0.0)",
} as const;
type Name = keyof typeof FUNCTIONS;

const FILES = {
  ...KERNEL_FILES,
  probe: [
    kernelSections(KERNEL_FILES.loss).shared,
    ...Object.entries(FUNCTIONS).map(
      ([name, expression]) => `//# ${name}Probe
@compute @workgroup_size(THREADS)
fn ${name}Probe(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < n.size) {
    let a = Double(x[4 * id.x], x[4 * id.x + 1]);
    let b = Double(x[4 * id.x + 2], x[4 * id.x + 3]);
    let result = ${expression};
    y[2 * id.x] = result.x;
    y[2 * id.x + 1] = result.y;
  }
}
`,
    ),
  ].join(""),
};
const probe = (name: Name): KernelDeclaration => ({
  name: `${name}Probe`,
  file: "probe",
  reads: [{ name: "x", dtype: "f32" }],
  writes: [{ name: "y", dtype: "f32" }],
  numbers: [{ name: "size", type: "u32" }],
  constants: [],
  samples: [],
  threads: 64,
});

/** Called with the four f32 of an element, what they stand for, and the two f32 of the result. */
type Check = (x: { a: number; b: number; aHigh: number; bHigh: number }, y: { high: number; low: number }) => void;

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;

describe.skipIf(!("open" in opened))("lib.wgsl", () => {
  let memory: DeviceMemory;
  beforeAll(() => {
    if ("open" in opened) memory = new DeviceMemory(new WebgpuDevice(opened.open, FILES));
  });
  afterAll(() => memory?.close());

  const COUNT = 4000;
  /**
   * Normal numbers times powers of 2 up to `spread` either way; a tail below half of a unit each. From 150 on there are zeros,
   * subnormal and infinite ones among them, and NaN.
   */
  async function each(name: Name, spread: number, check: Check): Promise<void> {
    const random = createRandom(3, name);
    const one = () =>
      spread >= 150 && random.integer(40) === 0
        ? Number.NaN
        : Math.fround(random.normal() * 2 ** (random.integer(2 * spread + 1) - spread));
    const x = new Float32Array(4 * COUNT);
    for (let i = 0; i < 2 * COUNT; i++) {
      x[2 * i] = i % 6 === 5 ? x[2 * i - 2] * (1 + random.normal() * 1e-4) : one(); // some pairs are close
      x[2 * i + 1] = x[2 * i] * 2 ** -25 * random.normal() * 0.3;
    }
    const y = await memory.scope(async () => {
      const result = memory.empty([COUNT, 2]);
      const given = memory.upload(x, [COUNT, 4], "f32");
      memory.run(probe(name), { groups: Math.ceil(COUNT / 64), tensors: [given, result], numbers: [COUNT] });
      return memory.read(result);
    });
    for (let i = 0; i < COUNT; i++) {
      const [aHigh, aLow, bHigh, bLow] = x.subarray(4 * i);
      check({ a: aHigh + aLow, b: bHigh + bLow, aHigh, bHigh }, { high: y[2 * i], low: y[2 * i + 1] });
    }
  }

  const within = (value: number, expected: number, error: number) => {
    if (!(Math.abs(value - expected) <= error)) expect.fail(`${value}, expected ${expected} to ${error}`);
  };
  const exact = (value: number, expected: number) => {
    if (value !== expected && !(Number.isNaN(value) && Number.isNaN(expected)))
      expect.fail(`${value}, expected ${expected}`);
  };

  it("sums and products of two f32 are exact", async () => {
    await each("twoSum", 8, ({ aHigh, bHigh }, { high, low }) => {
      exact(high, Math.fround(aHigh + bHigh));
      exact(high + low, aHigh + bHigh);
    });
    await each("twoProduct", 20, ({ aHigh, bHigh }, { high, low }) => {
      exact(high, Math.fround(aHigh * bHigh));
      exact(high + low, aHigh * bHigh);
    });
  });

  it("double-floats keep 44 bits", async () => {
    const sum = (a: number, b: number) => DOUBLE * (Math.abs(a) + Math.abs(b));
    await each("doubleAdd", 8, ({ a, b }, { high, low }) => within(high + low, a + b, sum(a, b)));
    await each("doubleAddFloat", 8, ({ a, bHigh: b }, { high, low }) => within(high + low, a + b, sum(a, b)));
    await each("doubleMultiply", 20, ({ a, b }, y) => within(y.high + y.low, a * b, DOUBLE * Math.abs(a * b)));
    await each("doubleMultiplyFloat", 20, ({ a, bHigh: b }, y) =>
      within(y.high + y.low, a * b, DOUBLE * Math.abs(a * b)),
    );
    await each("doubleDivide", 20, ({ a, b }, y) => within(y.high + y.low, a / b, DOUBLE * Math.abs(a / b)));
    await each("doubleSqrt", 20, ({ a }, { high, low }) => {
      const root = Math.sqrt(Math.abs(a));
      within(high + low, root, DOUBLE * root);
    });
  });

  it("rounds quotients and f16 as IEEE does", async () => {
    for (const spread of [30, 150])
      await each("divideRounded", spread, ({ aHigh, bHigh }, { high }) => exact(high, Math.fround(aHigh / bHigh)));
    await each("roundToHalf", 20, ({ aHigh }, { high }) => exact(high, roundToF16(aHigh)));
  });

  it("numbers are lifted and lowered to the last bit, subnormal ones too", async () => {
    await each("lifted", 150, ({ aHigh }, { high }) => {
      if (Math.abs(aHigh) < 2 ** 40) exact(high, Math.fround(aHigh * 2 ** 80));
    });
    await each("lowered", 150, ({ aHigh }, { high }) => exact(high, Math.fround(aHigh * 2 ** -80)));
  });

  it("exponentials and logarithms keep their digits", async () => {
    await each("expAccurate", 5, ({ aHigh }, { high }) => {
      const expected = Math.exp(aHigh);
      if (expected > 2 ** -126 && expected < 2 ** 127) within(high, expected, EXP * expected);
    });
    await each("logAccurate", 20, ({ aHigh }, { high }) => {
      const expected = Math.log(Math.abs(aHigh));
      within(high, expected, LOG * Math.max(1, Math.abs(expected)));
    });
    await each("logRatio", 8, ({ aHigh, bHigh }, { high }) => {
      const expected = Math.log(Math.abs(aHigh / bHigh)); // a quotient of f32 in between
      within(high, expected, 3 * LOG * Math.max(1, Math.abs(expected)));
    });
  });
});
