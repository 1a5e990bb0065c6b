// Variants of the error feedback of the column sweep on one slab of rows; see feedback.mjs. The quantizer is rounding.
import { BLOCK, payOne, payTile, TILE } from "../../src/engine/wasm/assembly/lib/feedback";

/** error = w - nearest(w). */
// @ts-ignore: decorator
@inline
function quantize(w: usize, error: usize, rows: i32): void {
  for (let r: usize = 0; r < <usize>rows << 2; r += 16) {
    const x = v128.load(w + r);
    v128.store(error + r, f32x4.sub(x, f32x4.nearest(x)));
  }
}

export function scalar(slab: usize, rows: i32, columns: i32, feedback: usize, scratch: usize): void {
  for (let i = 0; i < columns; i++) {
    quantize(slab + (<usize>(i * rows) << 2), scratch, rows);
    for (let j = i + 1; j < columns; j++)
      for (let r = 0; r < rows; r++) {
        const at = slab + (<usize>(j * rows + r) << 2);
        store<f32>(at, load<f32>(at) - load<f32>(scratch + (<usize>r << 2)) * load<f32>(feedback + (<usize>(i * columns + j) << 2)));
      }
  }
}

export function atOnce(slab: usize, rows: i32, columns: i32, feedback: usize, scratch: usize): void {
  for (let i = 0; i < columns; i++) {
    quantize(slab + (<usize>(i * rows) << 2), scratch, rows);
    for (let j = i + 1; j < columns; j++)
      payOne(slab + (<usize>(j * rows) << 2), scratch, load<f32>(feedback + (<usize>(i * columns + j) << 2)), rows);
  }
}

export function blocks(slab: usize, rows: i32, columns: i32, feedback: usize, scratch: usize): void {
  const bytes = <usize>rows << 2;
  for (let s = 0; s < columns; s += BLOCK) {
    const e = min(columns, s + BLOCK);
    for (let i = s; i < e; i++) {
      const error = scratch + <usize>(i - s) * bytes;
      quantize(slab + <usize>i * bytes, error, rows);
      for (let j = i + 1; j < e; j++)
        payOne(slab + <usize>j * bytes, error, load<f32>(feedback + (<usize>(i * columns + j) << 2)), rows);
    }
    for (let j = e; j < columns; j += TILE)
      payTile(slab, rows, scratch, feedback, columns, s, e, j, scratch + BLOCK * bytes);
  }
}
