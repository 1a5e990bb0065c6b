// The kernel laboratory: compiles an AssemblyScript file, and times and checks the variants of a kernel in it.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Exports and memory of `bench/kernels/NAME.as`, which may import from the engine's assembly. */
export async function compile(name) {
  let binary;
  const options =
    "--runtime stub -O3 --shrinkLevel 0 --converge --noAssert --importMemory --initialMemory 1024 --use abort=";
  const { error, stderr } = await asc.main(
    [`bench/kernels/${name}.ts`, "--outFile", "lab.wasm", "--enable", "simd", ...options.split(" ")],
    {
      readFile: (path) => {
        for (const candidate of [path, path.replace(/\.ts$/, ".as")])
          try {
            return readFileSync(`${ROOT}/${candidate}`, "utf8");
          } catch {}
        return null;
      },
      listFiles: () => [],
      writeFile: (path, contents) => {
        if (path.endsWith(".wasm")) binary = contents;
      },
    },
  );
  if (error) throw new Error(stderr.toString());
  const memory = new WebAssembly.Memory({ initial: 1024 });
  const { instance } = await WebAssembly.instantiate(binary, { env: { memory } });
  return { kernels: instance.exports, memory };
}

/** Least processor time of `rounds` calls in ms: the figure that a busy machine disturbs least. */
export function time(body, rounds = 7) {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const before = process.cpuUsage();
    body();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

/** Normal numbers that are the same in every run. */
export function normal(size, seed = 1) {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from({ length: size }, () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next()));
}

export function report(label, milliseconds, correct) {
  console.log(`${label.padEnd(66)} ${milliseconds.toFixed(2).padStart(8)} ms ${correct ? "" : "  WRONG"}`);
}
