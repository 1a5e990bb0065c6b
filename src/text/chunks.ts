// Encoding makes some hundred bytes of garbage for a byte of text, so long texts are encoded in chunks.

const CHUNK = 1 << 20;
/** Characters on both sides of a cut that are encoded to see whether it is clean. */
const CONTEXT = 1000;
/** Line ends that are tried for a cut before the chunk grows by another chunk. */
const TRIALS = 32;

type Encode = (text: string) => readonly number[];

/**
 * Ids of a text, chunk by chunk. A cut comes after a line end where encoding the text around it in two pieces gives the ids
 * of encoding it in one; a tokenizer for which that never holds (one that marks the beginning of a text) gets the whole.
 */
export function encodeInChunks(encode: Encode, text: string, chunk = CHUNK): Int32Array {
  const parts: Int32Array[] = [];
  for (let begin = 0; begin < text.length; ) {
    const end = findCut(encode, text, begin, chunk);
    parts.push(Int32Array.from(encode(text.slice(begin, end))));
    begin = end;
  }
  if (parts.length === 1) return parts[0];
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    ids.set(part, offset);
    offset += part.length;
  }
  return ids;
}

/** The first clean cut after at least `chunk` characters from `begin`; the end of the text when there is none. */
function findCut(encode: Encode, text: string, begin: number, chunk: number): number {
  for (let least = begin + chunk; least < text.length; least += chunk) {
    let cut = least;
    for (let trial = 0; trial < TRIALS; trial++) {
      cut = text.indexOf("\n", cut) + 1;
      if (cut === 0 || cut === text.length) return text.length;
      if (isClean(encode, text, begin, cut)) return cut;
    }
  }
  return text.length;
}

function isClean(encode: Encode, text: string, begin: number, cut: number): boolean {
  const before = text.slice(Math.max(begin, cut - CONTEXT), cut);
  const after = text.slice(cut, cut + CONTEXT);
  const whole = encode(before + after);
  const left = encode(before);
  const right = encode(after);
  return (
    whole.length === left.length + right.length &&
    left.every((id, i) => id === whole[i]) &&
    right.every((id, i) => id === whole[left.length + i])
  );
}
