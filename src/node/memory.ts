import { freemem } from "node:os";

/** Bytes of memory that this process can still take: what the machine has free, or what its container leaves. */
export function availableMemory(): number {
  const own = typeof process.availableMemory === "function" ? process.availableMemory() : Number.POSITIVE_INFINITY;
  return Math.min(freemem(), own > 0 ? own : Number.POSITIVE_INFINITY);
}
