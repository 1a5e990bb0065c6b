"""Makes the fixtures of this folder: tiny random models of each family with logits from Hugging Face transformers.

    python make.py            (torch 2.15, transformers 5.23, safetensors)

Each folder holds
    config.json         as transformers 5 writes it
    config.v4.json      the same model in the words of transformers 4 (rope_theta, rope_scaling, torch_dtype)
    model.safetensors   f32 or f16 weights
    expected.json       {tokens, shape, logits}: float32 logits (sdpa attention) as base64 of little-endian f32
Weights are larger than a trained model's start, so that attention is sharp and every feature shows in the logits; the
script checks that switching the feature off moves them.
"""

import base64
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM, FalconConfig, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config, Qwen3Config,
)

HERE = Path(__file__).parent
ROWS, LENGTH = 2, 19

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name, class, arguments, weights' type, keys without "model.", arguments that switch the feature off
MODELS = [
    (
        "llama-mha",
        LlamaConfig,
        dict(hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=5,
             vocab_size=97, rms_norm_eps=1e-5, rope_theta=10000.0),
        torch.float32, False, dict(rope_theta=100.0),
    ),
    (
        "llama-gqa-llama3-tied",
        LlamaConfig,
        dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, rms_norm_eps=1e-5, rope_theta=10000.0, rope_scaling=LLAMA3, tie_word_embeddings=True),
        torch.float16, False, dict(rope_scaling=None),
    ),
    (
        "llama-linear-bias",
        LlamaConfig,
        dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
             head_dim=16, vocab_size=96, rms_norm_eps=1e-6, rope_theta=500.0,
             rope_scaling={"rope_type": "linear", "factor": 4.0}, attention_bias=True, mlp_bias=True),
        torch.float16, False, dict(rope_scaling=None),
    ),
    (
        "mistral-window",
        MistralConfig,
        dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=5),
        torch.float16, False, dict(sliding_window=None),
    ),
    (
        "mistral-full-unprefixed",
        MistralConfig,
        dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=8, vocab_size=96, rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None,
             tie_word_embeddings=True),
        torch.float16, True, dict(sliding_window=5),
    ),
    (
        "qwen2-window",
        Qwen2Config,
        dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
             vocab_size=96, rms_norm_eps=1e-6, rope_theta=10000.0, use_sliding_window=True, sliding_window=6,
             max_window_layers=1),
        torch.float16, False, dict(use_sliding_window=False),
    ),
    (
        "qwen2-full",
        Qwen2Config,
        dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
             vocab_size=96, rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False, sliding_window=4,
             max_window_layers=0, tie_word_embeddings=True),
        torch.float32, False, dict(use_sliding_window=True),
    ),
    (
        "qwen3",
        Qwen3Config,
        dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, vocab_size=96, rms_norm_eps=1e-6, rope_theta=1000000.0),
        torch.float16, False, dict(rope_theta=100.0),
    ),
    (
        "opt-pre-norm",
        OPTConfig,
        dict(hidden_size=48, ffn_dim=80, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=48,
             vocab_size=96),
        torch.float16, False, dict(_remove_final_layer_norm=True),
    ),
    (
        "opt-post-norm-projected-unprefixed",
        OPTConfig,
        dict(hidden_size=48, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
             vocab_size=96, do_layer_norm_before=False),
        torch.float16, True, dict(do_layer_norm_before=True, _remove_final_layer_norm=True),
    ),
    (
        "opt-plain-norms-untied-gelu",  # as Galactica: no biases, GELU
        OPTConfig,
        dict(hidden_size=36, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=36,
             vocab_size=96, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
             tie_word_embeddings=False, _remove_final_layer_norm=True),
        torch.float16, False, dict(_remove_final_layer_norm=False),
    ),
    (
        "falcon-7b",
        FalconConfig,
        dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=6, vocab_size=96, multi_query=True,
             parallel_attn=True, bias=False, rope_theta=10000.0),
        torch.float16, False, dict(rope_theta=100.0),
    ),
    (
        "falcon-40b-unprefixed",
        FalconConfig,
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, num_kv_heads=2, vocab_size=96,
             new_decoder_architecture=True, ffn_hidden_size=96, rope_theta=500.0),
        torch.float16, True, dict(rope_theta=100.0),
    ),
    (
        "falcon-11b-untied",
        FalconConfig,
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, vocab_size=96,
             new_decoder_architecture=True, num_ln_in_parallel_attn=1, ffn_hidden_size=96, rope_theta=500042.0,
             tie_word_embeddings=False),
        torch.float16, False, dict(rope_theta=100.0),
    ),
    (
        "falcon-rw",
        FalconConfig,
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, vocab_size=96, alibi=True, bias=True,
             multi_query=False, parallel_attn=False, rope_theta=10000.0),
        torch.float16, False, dict(alibi=False),
    ),
]

COMMON = dict(max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def modern(kind, arguments):
    """The configuration of transformers 5 from the words of transformers 4."""
    arguments = dict(arguments)
    rope = dict(arguments.pop("rope_scaling", None) or {"rope_type": "default"})
    if kind is OPTConfig:
        return kind(**COMMON, **arguments)
    rope["rope_theta"] = arguments.pop("rope_theta")
    return kind(**COMMON, **arguments, rope_parameters=rope)


def build(kind, arguments, dtype, state=None):
    model = AutoModelForCausalLM.from_config(modern(kind, arguments), attn_implementation="sdpa").float().eval()
    if state is None:
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape)
            if name.endswith("bias"):
                noise = 0.3 * noise
            elif "norm" in name or ".ln_" in name:
                noise = 1 + 0.2 * noise
            elif "embed" not in name:
                gain = 2.0 if any(word in name for word in ("q_proj", "k_proj", "query_key_value")) else 1.2
                noise = gain * noise / value.shape[1] ** 0.5
            value.data = noise.to(dtype).float()
        model.tie_weights()
    else:
        missing = model.load_state_dict(state, strict=False).missing_keys
        assert all("norm" in name for name in missing), missing
    return model


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens), use_cache=False).logits


def old_config(kind, arguments, dtype):
    """What transformers 4 writes for the same model."""
    name = kind.model_type
    config = {
        "architectures": [{"opt": "OPT"}.get(name, name.capitalize()) + "ForCausalLM"],
        "attention_dropout": 0.0,
        **COMMON,
        **({} if name in ("opt", "falcon") else {"hidden_act": "silu", "tie_word_embeddings": False}),
        "initializer_range": 0.02,
        "model_type": name,
        "rope_scaling": None,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.49.0",
        "use_cache": True,
        **arguments,
    }
    if config["rope_scaling"] and config["rope_scaling"]["rope_type"] == "linear":  # the older of its two spellings
        config["rope_scaling"] = {"type": "linear", "factor": config["rope_scaling"]["factor"]}
    return dict(sorted(config.items()))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def main():
    for seed, (name, kind, arguments, dtype, unprefixed, off) in enumerate(MODELS):
        torch.manual_seed(seed)
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        model = build(kind, arguments, dtype)
        tokens = torch.randint(3, arguments["vocab_size"], (ROWS, LENGTH)).tolist()
        logits = logits_of(model, tokens)
        other = logits_of(build(kind, {**arguments, **off}, dtype, model.state_dict()), tokens)
        change = ((other - logits).abs().max() / logits.abs().max()).item()
        assert change > 0.02, f"{name}: {off} moves the logits by {change} only"

        tensors = {}
        for key, value in model.state_dict().items():
            if key == "lm_head.weight" and model.config.tie_word_embeddings:
                continue
            prefix = model.base_model_prefix + "."
            tensors[key.removeprefix(prefix) if unprefixed else key] = value.to(dtype).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model.config.dtype = dtype
        model.config.architectures = [type(model).__name__]
        written = json.loads(model.config.to_json_string(use_diff=True))
        write_json(folder / "config.json", written)
        write_json(folder / "config.v4.json", old_config(kind, arguments, dtype))
        write_json(
            folder / "expected.json",
            {
                "tokens": tokens,
                "shape": list(logits.shape),
                "logits": base64.b64encode(logits.numpy().astype("<f4").tobytes()).decode(),
            },
        )
        size = sum(file.stat().st_size for file in folder.iterdir())
        assert size < 300_000
        print(f"{name}: {size} bytes, largest logit {logits.abs().max():.2f}, {off} moves logits by {change:.3f}")


if __name__ == "__main__":
    main()
