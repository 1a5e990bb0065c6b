import type { Plugin } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createReferenceEngine } from "../../src/engine/reference/index.js";
import { hostView } from "../../src/tensor/index.js";
import { bundleForBrowser, findBrowser, openPage, type TestPage } from "../browser.js";
import { type Case, type Output, runCase } from "./case.js";
import { expectOutputs } from "./compare.js";
import { ALL_CASES } from "./suite.js";

// Cases run on the engine in a page; what comes out is compared here, as for the engines in Node. The software adapter of
// browsers takes seconds to compile a large kernel: a few cases of each operation, in views only. All of them run in Node.

/** Cases of an operation, spread over all that there are; BITWRIGHT_BROWSER_CASES asks for more. */
const CASES = Number(process.env.BITWRIGHT_BROWSER_CASES ?? 3);
const TIMEOUT = 180_000;

const PAGE = `
import { createWebgpuEngine } from "./src/engine/webgpu/engine.js";
import { runCase } from "./test/conformance/case.js";
import { ALL_CASES } from "./test/conformance/suite.js";

const made = createWebgpuEngine();
window.describeEngine = async () => {
  const { engine, reason } = await made;
  return engine ? { description: engine.description } : { reason };
};
window.runCase = async (index, asView) => {
  const { engine } = await made;
  const outputs = await runCase(engine, ALL_CASES[index], asView);
  return {
    liveBytes: engine.liveBytes(),
    outputs: outputs.map(({ path, shape, dtype, data }) => {
      const typed = ArrayBuffer.isView(data) ? data : Float64Array.from(data);
      const bytes = new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
      let text = "";
      for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
      return { path, shape, dtype, data: btoa(text) };
    }),
  };
};
`;

interface PageOutput extends Omit<Output, "data"> {
  data: string;
}

/** The suite names vitest, which a page has no use for: it takes the cases only. */
const withoutVitest: Plugin = {
  name: "without-vitest",
  setup(setup) {
    setup.onResolve({ filter: /^vitest$/ }, ({ path }) => ({ path, namespace: "without" }));
    setup.onLoad({ filter: /.*/, namespace: "without" }, () => ({
      contents: ["afterAll", "beforeAll", "beforeEach", "describe", "expect", "it"]
        .map((name) => `export const ${name} = undefined;`)
        .join("\n"),
    }));
  },
};

function decode({ data, ...rest }: PageOutput): Output {
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  if (rest.dtype === "number" || rest.dtype === "boolean") return { ...rest, data: new Float64Array(bytes.buffer) };
  const { buffer } = bytes;
  const size = rest.shape.reduce((product, extent) => product * extent, 1);
  return { ...rest, data: hostView(rest.dtype, buffer, 0, size) };
}

const found = findBrowser();
if ("path" in found) {
  describe("webgpu in a browser conforms", () => {
    let opened: TestPage;
    const reference = createReferenceEngine();
    beforeAll(async () => {
      opened = await openPage(found.path, await bundleForBrowser(PAGE, { plugins: [withoutVitest] }));
    });
    afterAll(async () => {
      await opened?.close();
      await reference.close();
    });

    it("has an adapter", async () => {
      expect(await opened.page.evaluate("describeEngine()")).toEqual({
        description: expect.stringMatching(/^WebGPU on .*swiftshader.*in software/i),
      });
    });

    async function conform(index: number, one: Case): Promise<void> {
      const expected = one.verify ? undefined : await runCase(reference, one, false);
      const { outputs, liveBytes } = await opened.page.evaluate<{ outputs: PageOutput[]; liveBytes: number }>(
        `runCase(${index}, true)`,
      );
      expect(liveBytes, `${one.label}: bytes left behind`).toBe(0);
      const decoded = outputs.map(decode);
      if (one.verify) await one.verify(decoded, one.inputs, reference);
      else expectOutputs(one, decoded, expected ?? [], one.label);
    }

    const operations = new Map<string, number[]>();
    for (const [index, { operation }] of ALL_CASES.entries())
      operations.set(operation, [...(operations.get(operation) ?? []), index]);
    for (const [operation, indices] of operations) {
      const count = Math.min(CASES, indices.length);
      const chosen = indices.filter((_, place) => (place * count) % indices.length < count);
      it(
        `${operation}, ${count} of ${indices.length} cases`,
        async () => {
          expect(chosen).toHaveLength(count);
          for (const index of chosen) await conform(index, ALL_CASES[index]);
        },
        TIMEOUT,
      );
    }
  });
} else
  it("says what is missing where there is no browser", () => {
    expect(found.reason).toMatch(/browser/);
    console.log(`WebGPU in a browser was not tested: ${found.reason}`);
  });
