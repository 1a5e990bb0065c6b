import type { F32 } from "../../tensor/index.js";
import { checkAttentionGrad } from "../check.js";
import type { AttentionOptions, Engine } from "../engine.js";
import type { WasmContext } from "./context.js";

/** Units of work that a batch of sequences is cut into at least: what so many threads can share. */
const UNITS = 16;
/** Queries of a tile and keys of a step, as in assembly/attentiongrad.ts. */
const QUERIES = 32;
const KEYS = 64;

/** assembly/attentiongrad.ts. */
export function attentionGradOperations({ runtime, empty, address, view }: WasmContext): Pick<Engine, "attentionGrad"> {
  function attentionGrad(
    q: F32,
    k: F32,
    v: F32,
    output: F32,
    grad: F32,
    options: AttentionOptions,
  ): { q: F32; k: F32; v: F32 } {
    const extents = checkAttentionGrad(q, k, v, output, grad, options);
    const { batch, tokens, heads, keyValueHeads, size } = extents;
    const [fromQ, fromK, fromV, fromOutput, fromGrad] = [q, k, v, output, grad].map(address);
    const slopes = options.slopes ? address(options.slopes) : 0;
    const gradients = { q: empty(q.shape), k: empty(k.shape), v: empty(v.shape) };
    if (q.size === 0) {
      for (const gradient of [gradients.k, gradients.v]) view(gradient).fill(0);
      return gradients;
    }
    const length4 = Math.ceil(tokens / 4) * 4;
    const size4 = Math.ceil(size / 4) * 4;
    const size8 = Math.ceil(size / 8) * 8;
    const tiles = Math.ceil(tokens / QUERIES);
    const chunks = Math.min(tiles, Math.ceil(UNITS / (batch * keyValueHeads)));
    const bytesOfPanels = 4 * keyValueHeads * length4 * size; // of one batch
    const bytesOfColumns = 4 * keyValueHeads * length4 * size4;
    const bytesOfSums = 4 * keyValueHeads * length4 * size8 * chunks;
    const scratch = 4 * (QUERIES * (length4 + 3 * size + 2 * size8 + size4) + 3 * QUERIES * KEYS) + 512;
    runtime.withTemporary(batch * (2 * bytesOfPanels + bytesOfColumns + 2 * bytesOfSums), (sumsOfK) => {
      const sumsOfV = sumsOfK + batch * bytesOfSums;
      const keyPanels = sumsOfV + batch * bytesOfSums;
      const valuePanels = keyPanels + batch * bytesOfPanels;
      const keyColumns = valuePanels + batch * bytesOfPanels;
      const packs = batch * keyValueHeads * Math.ceil(tokens / 64);
      const extentsOfKeys = [tokens, keyValueHeads, size, tokens];
      const packGrain = Math.ceil(2 ** 15 / (128 * size));
      runtime.run("packKeysValues", packs, packGrain, [keyPanels, keyColumns, fromK, fromK, ...extentsOfKeys]);
      runtime.run("packKeysValues", packs, packGrain, [valuePanels, 0, fromV, fromV, ...extentsOfKeys]);
      const shared = [tokens, heads, keyValueHeads, size, Math.max(1, extents.window), { f32: options.scale }];
      runtime.run(
        "attendGrad",
        batch * keyValueHeads * chunks,
        Math.ceil(2 ** 15 / ((heads / keyValueHeads) * Math.ceil(tiles / chunks) * QUERIES * tokens)),
        [
          ...[keyPanels, keyColumns, valuePanels, fromQ, fromOutput, fromGrad, address(gradients.q), sumsOfK, sumsOfV],
          ...[...shared, slopes, chunks],
        ],
        scratch,
      );
      const targets = [address(gradients.k), address(gradients.v)];
      const grain = Math.ceil(2 ** 15 / (2 * keyValueHeads * size * chunks));
      const extentsOfSums = [tokens, keyValueHeads, size, chunks];
      runtime.run("addKeyGrads", batch * tokens, grain, [...targets, sumsOfK, sumsOfV, ...extentsOfSums]);
    });
    return gradients;
  }

  return { attentionGrad };
}
