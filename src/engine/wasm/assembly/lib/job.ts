// The calling convention of kernels: `name(begin, end, args, scratch)` does units [begin, end) of a job. `args` points to
// 8-byte slots in shared memory; `scratch` is private memory of the calling thread. What a unit writes depends on the
// unit alone, so results do not depend on how units are spread over threads.

/** Slot `index` as an i32. */
// @ts-ignore: decorator
@inline
export function int(args: usize, index: i32): i32 {
  return load<i32>(args + (<usize>index << 3));
}

/** Slot `index` as a pointer. */
// @ts-ignore: decorator
@inline
export function pointer(args: usize, index: i32): usize {
  return load<usize>(args + (<usize>index << 3));
}

/** Slot `index` as an f32. */
// @ts-ignore: decorator
@inline
export function float(args: usize, index: i32): f32 {
  return load<f32>(args + (<usize>index << 3));
}

/** Slot `index` as an f64. */
// @ts-ignore: decorator
@inline
export function double(args: usize, index: i32): f64 {
  return load<f64>(args + (<usize>index << 3));
}
