// Peak memory of quantizing: a synthetic model of few and of many layers must take the same, and the peak must stay below one
// block's f32 weights x 6 + the activations + 300 MB.
//
//   node bench/speed/memory.mjs [--layers 4,64] [--model MODEL --calibration TEXT]   (a real model instead)
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeSyntheticModel } from "../synthetic-model.mjs";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "4,64" },
    model: { type: "string" },
    calibration: { type: "string", default: "c4" },
    samples: { type: "string", default: "32" },
    window: { type: "string", default: "512" },
    engine: { type: "string", default: "wasm" },
    options: { type: "string", default: "--codebook 16 --refine 0" },
  },
});
const scratch = mkdtempSync(join(tmpdir(), "bitwright-memory-"));
const quantize = (model, out) => {
  const args = ["dist/node/cli/main.js", "quantize", model, "-o", out, "--calibration", values.calibration];
  const options = [
    "--samples",
    values.samples,
    "--window",
    values.window,
    "--engine",
    values.engine,
    "--threads",
    "2",
    "--refine",
    "1",
    "--json",
  ];
  return JSON.parse(
    execFileSync(process.execPath, [...args, ...options], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }),
  );
};
try {
  const models = values.model
    ? [[values.model, values.model]]
    : values.layers.split(",").map((layers) => {
        const folder = join(scratch, `layers-${layers}`);
        writeSyntheticModel(folder, { layers: Number(layers) });
        return [`${layers} layers`, folder];
      });
  for (const [name, folder] of models) {
    const {
      peakMemoryBytes,
      peakActivationBytes: activationBytes,
      blockBytes,
    } = quantize(folder, join(scratch, "out"));
    rmSync(join(scratch, "out"), { recursive: true, force: true });
    const bound = 6 * blockBytes + activationBytes + 300e6;
    const mb = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
    console.log(
      `${name}: peak ${mb(peakMemoryBytes)}; one block ${mb(blockBytes)}, activations ${mb(activationBytes)}, bound ${mb(bound)}: ${peakMemoryBytes <= bound ? "within" : "ABOVE"}`,
    );
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
