import { env, platform } from "node:process";
import { firstLine } from "../../errors.js";
import { type Koffi, type Library, loadKoffi } from "../koffi.js";
import type { Product, ProductLibrary } from "../wasm/product.js";

export interface BlasLibrary extends ProductLibrary {
  readonly name: "blas";
  readonly description: string;
  readonly arithmetic: string;
}

/** Where a library of each kind is looked for. OpenBLAS and MKL with 32-bit integers. */
const CANDIDATES: Readonly<Record<string, readonly string[]>> = {
  linux: [
    "libopenblas.so.0",
    "libopenblas.so",
    "libopenblasp.so.0",
    "libopenblaso.so.0",
    "libmkl_rt.so.2",
    "libmkl_rt.so.1",
    "libmkl_rt.so",
  ],
  darwin: [
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    "/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
    "/usr/local/opt/openblas/lib/libopenblas.dylib",
  ],
  win32: ["libopenblas.dll", "openblas.dll", "mkl_rt.2.dll", "mkl_rt.1.dll"],
};

const [ROW_MAJOR, PLAIN, TRANSPOSED, UPPER] = [101, 111, 112, 121];

const SGEMM =
  "void cblas_sgemm(int order, int transA, int transB, int m, int n, int k, float alpha, " +
  "const float *a, int lda, const float *b, int ldb, float beta, _Inout_ float *c, int ldc)";
const SSYRK =
  "void cblas_ssyrk(int order, int uplo, int trans, int n, int k, float alpha, const float *a, int lda, " +
  "float beta, _Inout_ float *c, int ldc)";

/** Products below: of few rows, which are bound by memory, or of few multiplications. The kernels are as fast there. */
const FEW_ROWS = 4;
const FEW_MULTIPLICATIONS = 2 ** 15;

/**
 * The machine's BLAS: the file named by BITWRIGHT_BLAS, or the first of OpenBLAS, MKL and Accelerate that loads. `reason`
 * says in a line why there is none.
 */
export async function findBlas(threads: number): Promise<{ library: BlasLibrary } | { reason: string }> {
  const loaded = await loadKoffi();
  if ("reason" in loaded) return loaded;
  const { koffi } = loaded;
  // OpenBLAS's threads spin for 2^26 cycles after each product unless told otherwise, and our own threads want those cores:
  // a step of a decoder layer took 4 % longer, its elementwise parts up to 1.9 times as long
  env.OPENBLAS_THREAD_TIMEOUT ??= "16";
  const chosen = env.BITWRIGHT_BLAS;
  const candidates = chosen ? [chosen] : (CANDIDATES[platform] ?? []);
  const failures: string[] = [];
  for (const path of candidates) {
    try {
      return { library: open(koffi, path, threads) };
    } catch (error) {
      failures.push(firstLine(error));
    }
  }
  if (chosen) return { reason: `BITWRIGHT_BLAS=${chosen} does not load: ${failures[0]}` };
  const advice =
    platform === "linux" ? "install libopenblas0-pthread (Debian, Ubuntu) or openblas" : "install OpenBLAS";
  return {
    reason: `no BLAS library found (${candidates.join(", ") || platform}); ${advice}, or name one in BITWRIGHT_BLAS`,
  };
}

function open(koffi: Koffi, path: string, threads: number): BlasLibrary {
  const handle = koffi.load(path);
  const sgemm = handle.func(SGEMM);
  const ssyrk = handle.func(SSYRK);
  const version = settle(handle, threads, path);
  /** koffi passes typed arrays by address, over shared memory too: nothing is copied. */
  const at = (memory: ArrayBufferLike, address: number, length: number) => new Float32Array(memory, address, length);

  function multiply({ a, b, c, m, n, k, alpha, ...rest }: Product, memory: ArrayBufferLike): boolean {
    if (Math.min(m, n) <= FEW_ROWS || m * n * k <= FEW_MULTIPLICATIONS) return false;
    const [transA, lda] = rest.transposeA ? [TRANSPOSED, m] : [PLAIN, k];
    const [transB, ldb] = rest.transposeB ? [TRANSPOSED, k] : [PLAIN, n];
    const [left, right, out] = [at(memory, a, m * k), at(memory, b, k * n), at(memory, c, m * n)];
    const beta = Number(rest.accumulate);
    sgemm(ROW_MAJOR, transA, transB, m, n, k, alpha, left, lda, right, ldb, beta, out, n);
    return true;
  }

  function gram(x: number, rows: number, columns: number, c: number, memory: ArrayBufferLike): boolean {
    if (columns * columns * rows <= FEW_MULTIPLICATIONS) return false;
    const [from, out] = [at(memory, x, rows * columns), at(memory, c, columns * columns)];
    ssyrk(ROW_MAJOR, UPPER, TRANSPOSED, columns, rows, 1, from, columns, 1, out, columns);
    return true;
  }

  return {
    name: "blas",
    description: `${version} (${path})`,
    arithmetic: `blas ${version}, ${threads} threads`,
    multiply,
    gram,
  };
}

/** Sets the library's own thread count; returns its name and version. */
function settle(handle: Library, threads: number, path: string): string {
  const optional = (prototype: string) => {
    try {
      return handle.func(prototype);
    } catch {
      return undefined;
    }
  };
  const openblas = optional("void openblas_set_num_threads(int count)");
  if (openblas) {
    openblas(threads);
    // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH .."
    const config = String(optional("const char *openblas_get_config()")?.() ?? "");
    const core = String(optional("const char *openblas_get_corename()")?.() ?? "");
    return [...config.split(" ").slice(0, 2), core].filter((part) => part !== "").join(" ") || "OpenBLAS";
  }
  const mkl = optional("void MKL_Set_Num_Threads(int count)");
  if (mkl) {
    mkl(threads);
    const buffer = new Uint8Array(200);
    optional("void mkl_get_version_string(_Out_ uint8_t *buffer, int length)")?.(buffer, buffer.length);
    const text = new TextDecoder().decode(buffer);
    return `MKL ${/Version ([\d.]+)/.exec(text)?.[1] ?? ""}`.trim();
  }
  return path.includes("Accelerate") ? "Accelerate" : "BLAS"; // Accelerate chooses its threads itself
}
