const LEAST: f32 = 0.00006103515625; // 2^-14, the least normal f16
const LARGEST: f32 = 65504; // the largest f16

/** The nearest f16 that is neither 0 (2^-14 instead) nor infinite. */
export function f16Scale(scale: f32): f32 {
  const bits = reinterpret<u32>(scale);
  if (bits > 0x7f800000) return scale;
  let rounded: f32;
  if (scale < LEAST) rounded = nearest(scale * 16777216) / 16777216; // steps of 2^-24
  else rounded = reinterpret<f32>((bits + 0xfff + ((bits >> 13) & 1)) & 0xffffe000);
  return rounded == 0 ? LEAST : min(rounded, LARGEST);
}
