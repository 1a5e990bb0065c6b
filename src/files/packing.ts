// Dense bit streams: values of 1-32 bits one after another, least significant bit first, without alignment, cut into 32-bit
// words and filled with zero bits up to a whole word (checkpoint layouts: VPTQ, compressed-tensors, 3-bit GPTQ).

/** 32-bit words that hold `count` values of `width` bits. */
export const packedWords = (count: number, width: number): number => Math.ceil((count * width) / 32);

const maskOf = (width: number): number => (width === 32 ? 0xffffffff : (1 << width) - 1);

export type BitSource = Uint8Array | Uint16Array | Uint32Array | Int32Array;

/** Values of one width (1-31 where streams are written in turn). */
export interface BitStream {
  values: BitSource;
  width: number;
}

/** Appends values to one stream. Bits of a value above its width are dropped. */
export class BitWriter {
  private word = 0;
  private shift = 0;
  /** `words` begins as zeros. */
  constructor(private readonly words: Uint32Array) {}

  write(value: number, width: number): void {
    const bits = value & maskOf(width);
    this.words[this.word] |= bits << this.shift;
    const end = this.shift + width;
    if (end > 32) this.words[this.word + 1] |= bits >>> (32 - this.shift);
    if (end >= 32) this.word++;
    this.shift = end & 31;
  }

  /** A value of each stream, then the next of each, ..: `count` of each, from `begin` on. */
  writeInTurn(streams: readonly BitStream[], begin: number, count: number): void {
    const [first, second] = streams;
    if (streams.length === 2 && first.width + second.width < 32) {
      this.writePairs(first, second, begin, count);
      return;
    }
    for (let i = begin; i < begin + count; i++) {
      for (const { values, width } of streams) this.write(values[i], width);
    }
  }

  /** Two streams in turn, as most codebooks have them: the word under way in a variable, which is several times faster. */
  private writePairs(first: BitStream, second: BitStream, begin: number, count: number): void {
    const { words } = this;
    const lowWidth = first.width;
    const width = lowWidth + second.width;
    const [lowMask, mask] = [maskOf(lowWidth), maskOf(width)];
    const [low, high] = [first.values, second.values];
    let { word, shift } = this;
    let open = words[word];
    for (let i = begin; i < begin + count; i++) {
      const bits = ((low[i] & lowMask) | (high[i] << lowWidth)) & mask;
      open |= bits << shift;
      shift += width;
      if (shift < 32) continue;
      words[word++] = open;
      shift -= 32;
      open = shift > 0 ? bits >>> (width - shift) : 0;
    }
    if (shift > 0) words[word] = open;
    this.word = word;
    this.shift = shift;
  }

  /** Moves to the start of the next word, unless at one. */
  align(): void {
    if (this.shift > 0) this.word++;
    this.shift = 0;
  }
}

/** Reads values from a stream, front to back. The caller has checked that the words suffice. */
export class BitReader {
  private word = 0;
  private shift = 0;
  constructor(private readonly words: Uint32Array) {}

  read(width: number): number {
    let bits = this.words[this.word] >>> this.shift;
    const end = this.shift + width;
    if (end > 32) bits |= this.words[this.word + 1] << (32 - this.shift);
    if (end >= 32) this.word++;
    this.shift = end & 31;
    return (bits & maskOf(width)) >>> 0;
  }

  /** The inverse of `writeInTurn`: `count` values of each stream, into its `values` from `begin` on. */
  readInTurn(streams: readonly BitStream[], begin: number, count: number): void {
    const [first, second] = streams;
    if (streams.length === 2 && first.width + second.width < 32) {
      this.readPairs(first, second, begin, count);
      return;
    }
    for (let i = begin; i < begin + count; i++) {
      for (const { values, width } of streams) values[i] = this.read(width);
    }
  }

  private readPairs(first: BitStream, second: BitStream, begin: number, count: number): void {
    const { words } = this;
    const lowWidth = first.width;
    const width = lowWidth + second.width;
    const [lowMask, highMask] = [maskOf(lowWidth), maskOf(second.width)];
    const [low, high] = [first.values, second.values];
    let { word, shift } = this;
    for (let i = begin; i < begin + count; i++) {
      let bits = words[word] >>> shift;
      shift += width;
      if (shift >= 32) {
        word++;
        shift -= 32;
        if (shift > 0) bits |= words[word] << (width - shift);
      }
      low[i] = bits & lowMask;
      high[i] = (bits >>> lowWidth) & highMask;
    }
    this.word = word;
    this.shift = shift;
  }

  /** Passes over so many bits. */
  skip(bits: number): void {
    const end = this.shift + bits;
    this.word += Math.floor(end / 32);
    this.shift = end % 32;
  }

  align(): void {
    if (this.shift > 0) this.word++;
    this.shift = 0;
  }
}

/** Packs values of `width` bits (1-32) into their own whole words. */
export function packBits(values: BitSource, width: number): Uint32Array {
  checkWidth(width);
  const words = new Uint32Array(packedWords(values.length, width));
  const writer = new BitWriter(words);
  for (let i = 0; i < values.length; i++) writer.write(values[i], width);
  return words;
}

/** The first `count` values of `width` bits; the inverse of `packBits`. */
export function unpackBits(words: Uint32Array, width: number, count: number): Uint32Array {
  checkWidth(width);
  if (words.length < packedWords(count, width)) {
    throw new RangeError(
      `${count} values of ${width} bits need ${packedWords(count, width)} words, got ${words.length}`,
    );
  }
  const values = new Uint32Array(count);
  const reader = new BitReader(words);
  for (let i = 0; i < count; i++) values[i] = reader.read(width);
  return values;
}

function checkWidth(width: number): void {
  if (!Number.isInteger(width) || width < 1 || width > 32) throw new RangeError(`bit width ${width} is not in 1-32`);
}
