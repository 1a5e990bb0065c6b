import type { F32, I32 } from "../../tensor/index.js";
import {
  checkAttention,
  checkCrossEntropy,
  checkIndexValues,
  checkKlDivergence,
  checkRmsNorm,
  checkRope,
} from "../check.js";
import type { AttentionOptions, Engine } from "../engine.js";
import type { WasmContext } from "./context.js";

type Operations = Pick<Engine, "rmsNorm" | "rope" | "attention" | "crossEntropy" | "klDivergence">;

/** Elements worth a thread. */
const GRAIN = 2 ** 15;
const rowGrain = (width: number): number => Math.ceil(GRAIN / Math.max(1, width));

/** Queries up to which keys and values are read as they lie instead of packed. */
const FEW_QUERIES = 6;
/** Bytes of packed keys and values at a time. */
const PACKED_BYTES = 2 ** 25;

/** assembly/decoder.ts, attention.ts and loss.ts. */
export function decoderOperations({ runtime, empty, address, view }: WasmContext): Operations {
  function rmsNorm(x: F32, weight: F32, epsilon: number): F32 {
    const { rows, width } = checkRmsNorm(x, weight);
    const args = [address(x), address(weight), width, { f32: epsilon }];
    const target = empty(x.shape);
    runtime.run("rmsNorm", width > 0 ? rows : 0, rowGrain(width), [address(target), ...args]);
    return target;
  }

  function rope(x: F32, cos: F32, sin: F32, start: number): F32 {
    const { batch, tokens, heads, size, pairs } = checkRope(x, cos, sin, start);
    const args = [address(x), address(cos), address(sin), tokens, heads, size, pairs, start];
    const target = empty(x.shape);
    if (x.size > 0) runtime.run("rope", batch * tokens, rowGrain(heads * size), [address(target), ...args]);
    return target;
  }

  function attention(q: F32, k: F32, v: F32, options: AttentionOptions): F32 {
    const extents = checkAttention(q, k, v, options);
    const { batch, tokens, capacity, keyLength, heads, keyValueHeads, size } = extents;
    const [fromQ, fromK, fromV] = [address(q), address(k), address(v)];
    const slopes = options.slopes ? address(options.slopes) : 0;
    const target = empty(q.shape);
    if (target.size === 0) return target;
    const shared = [tokens, heads, keyValueHeads, size, keyLength, Math.max(1, extents.window), { f32: options.scale }];
    const group = heads / keyValueHeads;
    if (tokens <= FEW_QUERIES) {
      const args = [fromK, fromV, fromQ, address(target), ...shared, capacity, slopes];
      const grain = Math.ceil(GRAIN / (keyLength * size * group * tokens));
      runtime.run("attendRows", batch * keyValueHeads, grain, args, 4 * keyLength + 16);
      return target;
    }

    const size4 = Math.ceil(size / 4) * 4;
    const length4 = Math.ceil(keyLength / 4) * 4;
    const bytesOfKeys = 4 * keyValueHeads * length4 * size; // of one batch
    const bytesOfValues = 4 * keyValueHeads * length4 * size4;
    const together = Math.min(batch, Math.max(1, Math.floor(PACKED_BYTES / (bytesOfKeys + bytesOfValues))));
    const panels = 4 * group;
    const scratch = 8192 + panels * (64 + 32 * size + 32 * size4);
    const tiles = Math.ceil(tokens / 32);
    const tileGrain = Math.ceil(GRAIN / (32 * group * keyLength));
    runtime.withTemporary(together * (bytesOfKeys + bytesOfValues), (keys) => {
      const values = keys + together * bytesOfKeys;
      for (let first = 0; first < batch; first += together) {
        const count = keyValueHeads * Math.min(together, batch - first);
        const atKeys = 4 * first * capacity * keyValueHeads * size;
        const atQueries = 4 * first * tokens * heads * size;
        const packArgs = [keys, values, fromK + atKeys, fromV + atKeys, capacity, keyValueHeads, size, keyLength];
        runtime.run("packKeysValues", count * Math.ceil(keyLength / 64), rowGrain(128 * size), packArgs);
        const args = [keys, values, fromQ + atQueries, address(target) + atQueries, ...shared, slopes];
        runtime.run("attendTiles", count * tiles, tileGrain, args, scratch);
      }
    });
    return target;
  }

  function crossEntropy(logits: F32, targets: I32): F32 {
    const { rows, columns } = checkCrossEntropy(logits, targets);
    checkIndexValues("crossEntropy", view(targets) as Int32Array, columns);
    const args = [address(logits), address(targets), columns];
    const target = empty([rows]);
    runtime.run("crossEntropy", rows, rowGrain(columns), [address(target), ...args]);
    return target;
  }

  function klDivergence(reference: F32, logits: F32): F32 {
    const { rows, columns } = checkKlDivergence(reference, logits);
    const args = [address(reference), address(logits), columns];
    const target = empty([rows]);
    runtime.run("klDivergence", rows, rowGrain(columns), [address(target), ...args]);
    return target;
  }

  return { rmsNorm, rope, attention, crossEntropy, klDivergence };
}
