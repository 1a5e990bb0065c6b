/** SHA-256 of strings and byte arrays one after another, as lower-case hex. Lengths are mixed in, so ("ab","c") differs from ("a","bc"). */
export async function sha256(...parts: (string | Uint8Array)[]): Promise<string> {
  const encoder = new TextEncoder();
  const bytes = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
  const total = bytes.reduce((sum, part) => sum + 8 + part.byteLength, 0);
  const joined = new Uint8Array(total);
  const lengths = new DataView(joined.buffer);
  let offset = 0;
  for (const part of bytes) {
    lengths.setBigUint64(offset, BigInt(part.byteLength), true);
    joined.set(part, offset + 8);
    offset += 8 + part.byteLength;
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
