import { firstLine } from "../errors.js";

/** What we use of koffi. Written down here because koffi is optional: the build must not need it. */
export interface Koffi {
  load(path: string, options?: { lazy?: boolean; global?: boolean }): Library;
  /** Native memory that lives until `free`. */
  alloc(type: string, length: number): unknown;
  free(pointer: unknown): void;
  address(pointer: unknown): bigint;
  /** Memory at an address as a buffer, without a copy. */
  view(pointer: unknown, bytes: number): ArrayBuffer;
}

export interface Library {
  func(prototype: string): NativeFunction;
}

export type NativeFunction = (...args: unknown[]) => unknown;

/** The package, or in a line why it is not there. */
export async function loadKoffi(): Promise<{ koffi: Koffi } | { reason: string }> {
  try {
    const name = "koffi"; // not a literal: the type checker and bundlers shall not look for it
    return { koffi: ((await import(name)) as { default: Koffi }).default };
  } catch (error) {
    return { reason: `the optional package koffi is not there (${firstLine(error)}); npm install koffi` };
  }
}
