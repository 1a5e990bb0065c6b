import type { Engine, WeightFactors } from "../../engine/engine.js";
import type { ActivationScheme } from "../../model/activation-scheme.js";
import type { BlockWeights, LinearWeights } from "../../model/block.js";
import type { ModelConfig } from "../../model/config.js";
import type { LinearSlot, VectorSlot } from "../../model/family.js";
import { attentionRows, type SiteSpec, transformSites } from "../../model/sites.js";
import type { F32, I32 } from "../../tensor/index.js";

// Learned equivalent transformation (OmniQuant, arXiv 2308.13137, eq. 3-5): per-channel scales exp(theta) and shifts that move
// difficulty between activations and weights, folded into norms and linears. Unlike the released code every site is an exact
// equivalence: scales between query and key are tied over each rotary pair, those of keys and values repeated over the heads
// that share them, and the second linear of the MLP has a site too.
//
// Each site has log scales [n]. A linear's rows and columns are scaled by products of them: log r = sum of sign * theta[index]
// over its sites, W' = diag(r) W diag(c), b' = (b + W shift_in - shift_out) r. A norm before it is divided.

/** sign[i] * theta[index[i]] is added to log factor i; sign 0 leaves it alone. */
interface Part {
  site: string;
  index: Int32Array;
  sign: Float32Array;
}

interface LinearPlan {
  rows: Part[];
  columns: Part[];
}

export interface SitePlan {
  name: string;
  /** n: scales, and shifts if it has them. */
  size: number;
  shift: boolean;
  spec: SiteSpec;
}

/** Where the transformation of a block acts. The same for all blocks of a model. */
export interface TransformPlan {
  sites: SitePlan[];
  linears: Record<string, LinearPlan>;
  /** Site of each norm that has one. */
  norms: Record<string, string>;
}

/** Log scales and shifts by site. */
export interface TransformParameters {
  scale: Record<string, F32>;
  shift: Record<string, F32>;
}

/** A transformed block whose weights are still as they were: `factors` are what their rows and columns are multiplied by, by slot. */
export interface FactoredWeights extends BlockWeights {
  factors: Record<string, WeightFactors>;
}

/** Weights with the factors multiplied in; the same tensor where there are none. */
export function scaledWeight(engine: Engine, weight: F32, { rows, columns }: WeightFactors): F32 {
  const wide = columns ? engine.multiply(weight, columns) : weight;
  return rows ? engine.scaleRows(wide, rows) : wide;
}

const range = (count: number): Int32Array => Int32Array.from({ length: count }, (_, index) => index);

/**
 * The sites of a model's blocks. Only where activations are quantized does it matter how query and key share their sizes: with
 * a grid a row the weights alone would not notice.
 */
export function planTransform(config: ModelConfig, activations: ActivationScheme | undefined): TransformPlan {
  const plan: TransformPlan = { sites: [], linears: {}, norms: {} };
  const linear = (slot: string): LinearPlan => {
    plan.linears[slot] ??= { rows: [], columns: [] };
    return plan.linears[slot];
  };
  const signs = (count: number, sign: number) => new Float32Array(count).fill(sign);
  const { keyValueHeads, heads, headSize, hidden, mlp } = config;
  const rows = attentionRows(config);
  const slotOf = (slot: LinearSlot): LinearSlot => (rows.fused ? "queryKeyValue" : slot);
  const rowsOf = (slot: LinearSlot): number =>
    rows.fused ? (heads + 2 * keyValueHeads) * headSize : (slot === "query" ? heads : keyValueHeads) * headSize;
  /** Rows `places` of a linear take entry index[i] of the site, with this sign. */
  const addRows = (slot: LinearSlot, site: string, places: Int32Array, index: Int32Array, sign: number) => {
    const part = { site, index: new Int32Array(rowsOf(slot)), sign: new Float32Array(rowsOf(slot)) };
    for (const [at, row] of places.entries()) {
      part.index[row] = index[at];
      part.sign[row] = sign;
    }
    linear(slotOf(slot)).rows.push(part);
  };
  /** Entry of each of the queries' heads: that of the key-value head that it shares. */
  const repeated = (entries: Int32Array, perHead: number): Int32Array =>
    Int32Array.from({ length: heads * perHead }, (_, at) => {
      const head = Math.floor(at / perHead);
      return entries[Math.floor((head * keyValueHeads) / heads) * perHead + (at % perHead)];
    });

  for (const spec of transformSites(config)) {
    switch (spec.kind) {
      case "norm": {
        plan.sites.push({ name: spec.norm, size: hidden, shift: spec.shift, spec });
        plan.norms[spec.norm] = spec.norm;
        for (const slot of spec.consumers) {
          linear(slot).columns.push({ site: spec.norm, index: range(hidden), sign: signs(hidden, 1) });
        }
        break;
      }
      case "value": {
        const size = keyValueHeads * headSize;
        plan.sites.push({ name: "value", size, shift: spec.shift, spec });
        addRows("value", "value", rows.value, range(size), -1);
        const columns = repeated(range(size), headSize);
        linear("output").columns.push({ site: "value", index: columns, sign: signs(columns.length, 1) });
        break;
      }
      case "queryKey": {
        if (activations?.query === undefined && activations?.key === undefined) break;
        const { index, size } = tiedPairs(config, spec.rotary);
        plan.sites.push({ name: "queryKey", size, shift: false, spec });
        addRows("key", "queryKey", rows.key, index, 1);
        addRows("query", "queryKey", rows.query, repeated(index, headSize), -1);
        break;
      }
      case "mlp": {
        plan.sites.push({ name: "mlp", size: mlp, shift: false, spec });
        linear(spec.from).rows.push({ site: "mlp", index: range(mlp), sign: signs(mlp, -1) });
        linear(spec.to).columns.push({ site: "mlp", index: range(mlp), sign: signs(mlp, 1) });
        break;
      }
      default:
        spec satisfies never;
    }
  }
  return plan;
}

/** Entry of each key row, [K * d]: one for both of a rotary pair, one for each dimension that is not rotated. */
function tiedPairs({ keyValueHeads, headSize }: ModelConfig, rotary: number): { index: Int32Array; size: number } {
  const pairs = rotary / 2;
  const perHead = headSize - pairs;
  const index = Int32Array.from({ length: keyValueHeads * headSize }, (_, row) => {
    const dimension = row % headSize;
    const own = dimension < pairs ? dimension : dimension - pairs; // those after the pairs follow the pairs' entries
    return Math.floor(row / headSize) * perHead + own;
  });
  return { index, size: keyValueHeads * perHead };
}

/** The sign of a part that takes every entry of its site in order, all with one sign. */
function plainSign({ index, sign }: Part, size: number): number | undefined {
  const isPlain = index.length === size && index.every((entry, at) => entry === at && sign[at] === sign[0]);
  return isPlain && sign[0] !== 0 ? sign[0] : undefined;
}

/** The plan's index and sign vectors in an engine, but for plain parts; `dispose` frees them. */
export class Transform {
  private readonly tensors = new Map<Part, { index: I32; sign: F32 }>();
  private readonly plain = new Map<Part, number>();

  constructor(
    private readonly engine: Engine,
    readonly plan: TransformPlan,
  ) {
    const sizes = Object.fromEntries(plan.sites.map(({ name, size }) => [name, size]));
    const parts = Object.values(plan.linears).flatMap(({ rows, columns }) => [...rows, ...columns]);
    engine.scope(() => {
      for (const part of parts) {
        const sign = plainSign(part, sizes[part.site]);
        if (sign !== undefined) {
          this.plain.set(part, sign);
          continue;
        }
        this.tensors.set(part, {
          index: engine.upload(part.index, [part.index.length], "i32"),
          sign: engine.upload(part.sign, [part.sign.length], "f32"),
        });
      }
      for (const { index, sign } of this.tensors.values()) for (const tensor of [index, sign]) engine.keep(tensor); // when all are there
    });
  }

  dispose(): void {
    for (const { index, sign } of this.tensors.values()) {
      index.dispose();
      sign.dispose();
    }
  }

  /** No transformation: log scales and shifts 0. */
  identity(): TransformParameters {
    const { engine, plan } = this;
    const zeros = (sites: SitePlan[]) =>
      Object.fromEntries(sites.map(({ name, size }) => [name, engine.create([size])]));
    return { scale: zeros(plan.sites), shift: zeros(plan.sites.filter(({ shift }) => shift)) };
  }

  /** The transformed weights, new tensors where they differ. Runs on the base engine or on one that records. */
  apply(engine: Engine, weights: BlockWeights, parameters: TransformParameters): BlockWeights {
    return engine.scope(() => {
      const { linears, vectors, factors } = this.factored(engine, weights, parameters);
      const scaled = Object.entries(linears).map(([slot, linear]): [string, LinearWeights] => [
        slot,
        { ...linear, weight: scaledWeight(engine, linear.weight, factors[slot]) },
      ]);
      return { linears: Object.fromEntries(scaled), vectors };
    });
  }

  /** As `apply`, but for the weights of the linears, whose factors stand beside them. */
  factored(engine: Engine, weights: BlockWeights, parameters: TransformParameters): FactoredWeights {
    return engine.scope(() => {
      const linears: Record<string, LinearWeights> = {};
      const factors: Record<string, WeightFactors> = {};
      for (const [slot, { weight, bias }] of Object.entries(weights.linears)) {
        const { rows = [], columns = [] } = this.plan.linears[slot] ?? {};
        factors[slot] = {
          columns: this.factor(engine, columns, parameters),
          rows: this.factor(engine, rows, parameters),
        };
        const moved = bias && this.bias(engine, slot, weight, bias, factors[slot].rows, parameters);
        linears[slot] = moved ? { weight, bias: moved } : { weight };
      }
      return { linears, vectors: this.vectors(engine, weights.vectors, parameters), factors };
    });
  }

  /** What the columns of a linear are multiplied by, [I]; undefined for nothing. */
  columnFactor(engine: Engine, slot: string, parameters: TransformParameters): F32 | undefined {
    return engine.scope(() => this.factor(engine, this.plan.linears[slot]?.columns ?? [], parameters));
  }

  /** (b + W shift_in - shift_out) r. */
  private bias(
    engine: Engine,
    slot: string,
    weight: F32,
    bias: F32,
    rows: F32 | undefined,
    by: TransformParameters,
  ): F32 {
    const plan = this.plan.linears[slot];
    if (!plan) return bias;
    let moved = bias;
    for (const part of plan.columns) {
      const shift = this.spread(engine, part, by.shift);
      if (shift) moved = engine.add(moved, engine.view(engine.matmul(weight, column(engine, shift)), bias.shape));
    }
    for (const part of plan.rows) {
      // the sign of rows that are divided is -1, which is what the shift needs too
      const shift = this.spread(engine, part, by.shift);
      if (shift) moved = engine.add(moved, shift);
    }
    return rows ? engine.multiply(moved, rows) : moved;
  }

  private vectors(engine: Engine, vectors: Record<string, F32>, by: TransformParameters): Record<string, F32> {
    const result = { ...vectors };
    for (const [norm, site] of Object.entries(this.plan.norms)) {
      const scale = engine.exp(by.scale[site]);
      result[norm] = engine.divide(vectors[norm], scale);
      const biasSlot: VectorSlot = `${norm}Bias` as VectorSlot;
      const bias = vectors[biasSlot];
      if (!bias) continue;
      const shift = by.shift[site];
      result[biasSlot] = engine.divide(shift ? engine.subtract(bias, shift) : bias, scale);
    }
    return result;
  }

  /** exp of the summed log factors, or undefined for none. */
  private factor(engine: Engine, parts: Part[], by: TransformParameters): F32 | undefined {
    let sum: F32 | undefined;
    for (const part of parts) {
      const one = this.spread(engine, part, by.scale);
      if (one) sum = sum ? engine.add(sum, one) : one;
    }
    return sum && engine.exp(sum);
  }

  /** sign[i] * values[index[i]] of a site. */
  private spread(engine: Engine, part: Part, values: Record<string, F32>): F32 | undefined {
    const own = values[part.site];
    const plain = this.plain.get(part);
    if (own && plain !== undefined) return plain === 1 ? own : engine.scale(own, plain);
    const tensors = this.tensors.get(part);
    if (!own || !tensors) return undefined;
    const gathered = engine.gatherRows(column(engine, own), tensors.index);
    return engine.multiply(engine.view(gathered, [part.index.length]), tensors.sign);
  }
}

const column = (engine: Engine, vector: F32): F32 => engine.view(vector, [vector.size, 1]);
