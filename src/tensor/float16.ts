// Exact conversions between f32 and the 16-bit floats, by round-to-nearest-even (IEEE 754-2019, 4.3.1).
// The arrays hold bit patterns: Node 20 has no Float16Array.

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** f16 bits of the f32 nearest to `value`. Overflow gives infinity; NaN stays a quiet NaN. */
export function toF16(value: number): number {
  float[0] = value;
  return f16OfBits(word[0]);
}

function f16OfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >>> 13) & 0x1ff) : 0x7c00);
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude >= 0x38800000) {
    // normal: rebias the exponent, round the 13 dropped bits half to even
    const rebased = magnitude - 0x38000000;
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  if (magnitude < 0x33000000) return sign; // below half of the least subnormal (2^-25); the tie at 2^-25 goes to even
  const shift = 126 - (magnitude >>> 23); // 14..24
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0));
}

let f16Table: Float32Array | undefined;

/** Value of all 65,536 f16 patterns, built at first use (256 kB). */
function f16Values(): Float32Array {
  if (f16Table) return f16Table;
  f16Table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >>> 10) & 0x1f;
    const mantissa = bits & 0x3ff;
    if (exponent === 0) f16Table[bits] = sign * mantissa * 2 ** -24;
    else if (exponent === 31) f16Table[bits] = mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else f16Table[bits] = sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
  }
  return f16Table;
}

export const fromF16 = (bits: number): number => f16Values()[bits & 0xffff];

/** bf16 bits of the f32 nearest to `value`. */
export function toBF16(value: number): number {
  float[0] = value;
  return bf16OfBits(word[0]);
}

function bf16OfBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return ((bits >>> 16) | 0x40) & 0xffff; // a NaN must not round to infinity
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBF16(bits: number): number {
  word[0] = (bits << 16) >>> 0;
  return float[0];
}

export function f32ToF16(source: Float32Array, target: Uint16Array = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) target[i] = f16OfBits(bits[i]);
  return target;
}

export function f16ToF32(source: Uint16Array, target: Float32Array = new Float32Array(source.length)): Float32Array {
  const values = f16Values();
  for (let i = 0; i < source.length; i++) target[i] = values[source[i]];
  return target;
}

export function f32ToBF16(source: Float32Array, target: Uint16Array = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) target[i] = bf16OfBits(bits[i]);
  return target;
}

export function bf16ToF32(source: Uint16Array, target: Float32Array = new Float32Array(source.length)): Float32Array {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16;
  return target;
}

/** `value` rounded to the nearest f16, as a number. */
export const roundToF16 = (value: number): number => fromF16(toF16(value));
