// A random LLaMA checkpoint of any depth with the bundled model's tokenizer: for measuring memory and time, not quality.
import { closeSync, copyFileSync, fsyncSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Values written at once. */
const PIECE = 2 ** 20;

export function writeSyntheticModel(
  folder,
  { layers, hidden = 256, mlp = 768, heads = 4, keyValueHeads = 2, vocabulary = 8192, positions = 1024 },
) {
  mkdirSync(folder, { recursive: true });
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: hidden,
    intermediate_size: mlp,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyValueHeads,
    head_dim: hidden / heads,
    vocab_size: vocabulary,
    max_position_embeddings: positions,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: true,
    torch_dtype: "float16",
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  copyFileSync("models/wiki-7m/tokenizer.json", join(folder, "tokenizer.json"));
  const keyWidth = (hidden / heads) * keyValueHeads;
  const shapes = { "model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden] };
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    shapes[`${prefix}.input_layernorm.weight`] = [hidden];
    shapes[`${prefix}.post_attention_layernorm.weight`] = [hidden];
    shapes[`${prefix}.self_attn.q_proj.weight`] = [hidden, hidden];
    shapes[`${prefix}.self_attn.k_proj.weight`] = [keyWidth, hidden];
    shapes[`${prefix}.self_attn.v_proj.weight`] = [keyWidth, hidden];
    shapes[`${prefix}.self_attn.o_proj.weight`] = [hidden, hidden];
    shapes[`${prefix}.mlp.gate_proj.weight`] = [mlp, hidden];
    shapes[`${prefix}.mlp.up_proj.weight`] = [mlp, hidden];
    shapes[`${prefix}.mlp.down_proj.weight`] = [hidden, mlp];
  }
  const header = {};
  let end = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = shape.reduce((product, extent) => product * extent, 2);
    header[name] = { dtype: "BF16", shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (text.length % 8)) % 8);
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(text.length));
  const target = openSync(join(folder, "model.safetensors"), "w");
  writeSync(target, start);
  writeSync(target, text);
  // the same numbers in every block, none twice in one: equal vectors would be another problem; norms are 1
  const drawn = new Map();
  let state = 12345;
  for (const [name, shape] of Object.entries(shapes)) {
    const slot = name.replace(/\.\d+\./, ".");
    if (!drawn.has(slot)) {
      const values = new Uint16Array(shape.reduce((product, extent) => product * extent));
      if (slot.endsWith("norm.weight")) values.fill(0x3f80);
      else state = fillNormal(values, state);
      drawn.set(slot, values);
    }
    const values = drawn.get(slot);
    for (let at = 0; at < values.length; at += PIECE) writeSync(target, values.subarray(at, at + PIECE));
  }
  fsyncSync(target); // a measurement has the disk for itself
  closeSync(target);
}

/** Fills with bf16 bits of roughly normal numbers of deviation 0.02; returns the state behind the last one. */
function fillNormal(values, before) {
  let state = before;
  const one = new Float32Array(1);
  const bits = new Uint32Array(one.buffer);
  for (let i = 0; i < values.length; i++) {
    let sum = -2;
    for (let k = 0; k < 4; k++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      sum += (state >>> 0) / 2 ** 32;
    }
    one[0] = sum * 0.035;
    values[i] = bits[0] >>> 16;
  }
  return state;
}
