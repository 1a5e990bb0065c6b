import type { StoredDType, TensorInfo, TensorReader } from "../files/tensors.js";
import type { RecordLayout, RecordShape } from "../quant/bits.js";
import type { QuantizedRecord } from "../quant/record.js";

// What an on-disk layout of quantized linears is: both directions, and what can be known without reading the data.

/** A tensor of one layer; the name is relative to the layer ("indices"). */
export interface LayerTensor {
  name: string;
  dtype: StoredDType;
  shape: readonly number[];
  /** Row-major, little-endian. Codes are packed when asked for: what is there to be written is known before. */
  bytes(): Uint8Array;
}

/** The tensors of one layer in a checkpoint. */
export interface LayerTensors {
  /** The layer's name, for messages. */
  readonly layer: string;
  info(name: string): TensorInfo | undefined;
  read(name: string): Promise<Uint8Array>;
}

export function layerTensors(tensors: TensorReader, layer: string): LayerTensors {
  return {
    layer,
    info: (name) => tensors.info(`${layer}.${name}`),
    read: (name) => tensors.readRaw(`${layer}.${name}`),
  };
}

/** Why something cannot be written, and what can be done. */
export interface Refusal {
  reason: string;
  remedy: string;
}

export const ELSEWHERE = "write the bitwright layout (--format bitwright), or quantize these layers otherwise";

/** Of formats for affine codes. */
export const NO_CODEBOOKS: Refusal = {
  reason: "it holds affine codes only, no codebooks",
  remedy: "write vptq or bitwright, or quantize with --method omniquant, gptq or rtn",
};

/** `Setting` is what the layout's configuration says of a layer, checked. */
export interface Layout<Setting> {
  readonly name: RecordLayout;
  /** True, or why the layout cannot hold a record of this shape. */
  accepts(shape: RecordShape): true | Refusal;
  /**
   * Tensors in the order in which they are stored, and the layer's part of the configuration. Values that the storage type cannot hold
   * are a "format" error when the bytes are asked for.
   */
  write(record: QuantizedRecord): { tensors: LayerTensor[]; setting: { [key: string]: unknown } };
  /** Shape of the record, with every tensor's type and shape checked; reads no data. Throws "format". */
  shape(tensors: LayerTensors, setting: Setting): RecordShape;
  /** The record; hostile input gives typed errors only. */
  read(tensors: LayerTensors, setting: Setting): Promise<QuantizedRecord>;
}

/** Bounds of one linear, far above any model. */
export const LAYER_LIMITS = { features: 1 << 20, elements: 2 ** 31, vectorLength: 256, codewords: 65536 } as const;
