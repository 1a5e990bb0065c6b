/**
 * Dynamic quantization of activations while the model runs: bits of each, 2..8, undefined to leave it alone. A token's vector
 * has a grid of its own (`Engine.fakeQuantizeRows`); query, key and value have one a head.
 */
export interface ActivationScheme {
  /** The input of every linear of a block. */
  input?: number;
  /** After the rotary embedding, as key is. */
  query?: number;
  key?: number;
  value?: number;
  /** Default: min-max with a zero. */
  symmetric?: boolean;
}
