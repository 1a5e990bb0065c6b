// Named tolerances of all tests, in one place.

/** Logits of a model against Hugging Face transformers in f32: max |difference| as a share of the largest |logit|. */
export const FAMILY_LOGITS = 2e-4;
