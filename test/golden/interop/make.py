"""Makes the fixtures of this folder with the packers of gptqmodel and compressed-tensors.

    GPTQMODEL_CPU_WORKERS=3 python make.py      (torch 2.15, transformers 5.23, gptqmodel 7.7.0, compressed-tensors 0.20.0)

packed.safetensors    linears as the packers wrote them: "CASE/TENSOR"; what they were given: "CASE:codes" u8 [O, I],
                      "CASE:zero" u8 [O, G], "CASE:scale" [O, G] (unsigned codes, zero below 2^bits), "CASE:group" i32 [I] where
                      groups are no runs; what their own decoders make of it: "CASE:weight" f32 [O, I]
cases.json            what each case is
MODEL/                checkpoints of a tiny LLaMA packed by them, and expected.json {tokens, shape, logits}: float32 logits of
                      transformers, of the weights that their decoders give, or (int-quantized) of the model as they run it
"""

import base64
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization import FORMAT
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

logging.disable(logging.WARNING)
HERE = Path(__file__).parent
generator = torch.Generator().manual_seed(20)


def numbers(rows, columns, bits, group, symmetric, scattered=False, dtype=torch.float16):
    """Random codes, zeros and scales; `scattered` groups are no runs of columns."""
    groups = -(-columns // group)
    draw = lambda high, shape: torch.randint(0, high, shape, generator=generator)
    codes = draw(2**bits, (rows, columns))
    zero = torch.full((rows, groups), 2 ** (bits - 1)) if symmetric else draw(2**bits, (rows, groups))
    scale = ((torch.rand(rows, groups, generator=generator) + 0.5) * 0.6 / 2**bits).to(dtype)
    index = torch.arange(columns) // group
    if scattered:
        index = index[torch.randperm(columns, generator=generator)]
    return codes, zero, scale, index


def exact(codes, zero, scale, index):
    """(q - z) s in float32."""
    return (codes - zero[:, index]).float() * scale.float()[:, index]


def gptq(codes, zero, scale, index, bits, group, symmetric, version, bias=None):
    """What gptqmodel stores, and what it decodes (float32 of its scales)."""
    rows, columns = codes.shape
    module = TorchLinear(
        bits=bits, group_size=group, sym=symmetric, desc_act=False, in_features=columns, out_features=rows,
        bias=bias is not None, pack_dtype=torch.int32, format=FORMAT.GPTQ_V2,
    )
    linear = nn.Linear(columns, rows, bias=bias is not None)
    linear.weight.data = exact(codes, zero, scale, index)
    if bias is not None:
        linear.bias.data = bias.float()
    module.pack_block(linear, scale.float(), zero.float(), index.to(torch.int32))
    module.post_init()
    module.scales = module.scales.float()
    decoded = module.dequantize_weight().T.contiguous()
    stored = {"qweight": module.qweight, "qzeros": module.qzeros, "scales": module.scales.to(scale.dtype), "g_idx": module.g_idx}
    if version == 1:
        module.qzeros = module.qzeros.clone()
        convert_gptq_v2_to_v1_format_module(module, SimpleNamespace(bits=bits, pack_dtype=torch.int32))
        stored["qzeros"] = module.qzeros
    if bias is not None:
        stored["bias"] = module.bias
    return {name: tensor.clone().contiguous() for name, tensor in stored.items()}, decoded


def scheme_of(bits, group, symmetric, columns, form, inputs=None):
    whole = group >= columns
    weights = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="channel" if whole else "group", group_size=None if whole else group
    )
    return QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs, format=form)


def compressed(codes, zero, scale, index, bits, group, symmetric, form):
    """What compressed-tensors stores, and what it decodes."""
    columns = codes.shape[1]
    scheme = scheme_of(bits, group, symmetric, columns, form)
    signed = (zero - 2 ** (bits - 1)).to(torch.int8)
    state = {"weight": exact(codes, zero, scale, index), "weight_scale": scale, "weight_zero_point": signed}
    compressor = BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(state, scheme)
    widened = {**stored, "weight_scale": stored["weight_scale"].float()}
    return stored, compressor.decompress(widened, scheme)["weight"].float()


CASES = [
    # name, rows, columns, bits, group, symmetric, scattered
    *[(f"gptq-{bits}-32-sym", 32, 64, bits, 32, True, False) for bits in (2, 3, 4, 8)],
    *[(f"gptq_v2-{bits}-32-asym", 32, 64, bits, 32, False, False) for bits in (2, 3, 4, 8)],
    ("gptq_v2-4-channel-asym", 32, 64, 4, 64, False, False),
    ("gptq-4-64-sym-ragged", 32, 96, 4, 64, True, False),
    ("gptq_v2-3-32-asym-scattered", 32, 96, 3, 32, False, True),
    *[(f"pack-quantized-{bits}-32-asym", 24, 64, bits, 32, False, False) for bits in (2, 3, 4, 5, 6, 7, 8)],
    ("pack-quantized-3-channel-sym", 20, 50, 3, 50, True, False),
    ("pack-quantized-3-10-asym", 20, 50, 3, 10, False, False),
    ("int-quantized-8-channel-sym", 20, 50, 8, 50, True, False),
    ("int-quantized-4-25-asym", 20, 50, 4, 25, False, False),
]


def make_cases():
    tensors, cases = {}, []
    for name, rows, columns, bits, group, symmetric, scattered in CASES:
        given = numbers(rows, columns, bits, group, symmetric, scattered)
        form = name.split(f"-{bits}-")[0]
        bias = torch.randn(rows, generator=generator).half() if name.endswith("channel-asym") else None
        if form.startswith("gptq"):
            size = -1 if group == columns else group
            stored, decoded = gptq(*given, bits, size, symmetric, 1 if form == "gptq" else 2, bias)
        else:
            stored, decoded = compressed(*given, bits, group, symmetric, form)
        assert torch.equal(decoded, exact(*given)), name
        codes, zero, scale, index = given
        for field, tensor in stored.items():
            tensors[f"{name}/{field}"] = tensor.clone().contiguous()
        tensors |= {f"{name}:codes": codes.to(torch.uint8), f"{name}:zero": zero.to(torch.uint8), f"{name}:scale": scale.clone()}
        tensors[f"{name}:weight"] = decoded.clone()
        if scattered:
            tensors[f"{name}:group"] = index.to(torch.int32)
        cases.append(dict(name=name, layout=form, rows=rows, columns=columns, bits=bits, group=group, symmetric=symmetric))
    save_file(tensors, HERE / "packed.safetensors")
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


CONFIG = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=48,
    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
)


def make_model(name, quantization, settings, pack, run_compressed=False):
    """A random model with every linear packed: settings(linear's name) -> bits, group, symmetric, scattered."""
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    tensors = {}
    for key, parameter in model.named_parameters():
        parameter.data = (parameter.data * (4 if parameter.dim() == 2 else 1)).half().float()
    for key, module in model.named_modules():
        if not isinstance(module, nn.Linear) or key == "lm_head":
            continue
        bits, group, symmetric, scattered = settings(key)
        rows, columns = module.weight.shape
        group = columns if group < 0 else group
        stored, decoded = pack(numbers(rows, columns, bits, group, symmetric, scattered), bits, group, symmetric, columns)
        module.weight.data = decoded
        tensors |= {f"{key}.{field}": tensor.clone().contiguous() for field, tensor in stored.items()}
    quantized = {key.rsplit(".", 1)[0] for key in tensors}
    for key, parameter in model.named_parameters():
        if key.rsplit(".", 1)[0] not in quantized:
            tensors[key] = parameter.data.half().contiguous()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"], "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    tokens = torch.randint(0, 48, (2, 12), generator=generator)
    if run_compressed:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(tokens).logits.float()
    text = base64.b64encode(logits.numpy().astype("<f4").tobytes()).decode()
    (folder / "expected.json").write_text(json.dumps(dict(tokens=tokens.tolist(), shape=list(logits.shape), logits=text)))
    print(name, list(logits.shape), float(logits.abs().max()))


def args(**words):
    return {"type": "int", "dynamic": False, "group_size": None, **words}


def ct_config(form, groups, **words):
    return {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed", "ignore": ["lm_head"],
        "kv_cache_scheme": None, "config_groups": groups, "version": "0.20.0", **words,
    }


def make_models():
    base = {"quant_method": "gptq", "desc_act": False, "lm_head": False, "pack_dtype": "int32"}
    pack_gptq = lambda version: lambda given, bits, group, symmetric, columns: gptq(
        *given, bits, -1 if group == columns else group, symmetric, version)
    make_model(
        "gptq-v1-4-32-sym", {**base, "bits": 4, "group_size": 32, "sym": True, "checkpoint_format": "gptq"},
        lambda key: (4, 32, True, False), pack_gptq(1))
    dynamic = {"+:.*\\.down_proj$": {"bits": 8, "group_size": -1}, "^model\\.layers\\.1\\.(?:mlp\\.gate)_proj": {"sym": True}}
    make_model(
        "gptq-v2-3-32-asym-act-order",
        {**base, "bits": 3, "group_size": 32, "sym": False, "desc_act": True, "checkpoint_format": "gptq_v2", "dynamic": dynamic},
        lambda key: (8, -1, False, False) if key.endswith("down_proj") else (3, 32, key.endswith("1.mlp.gate_proj"), True),
        pack_gptq(2))
    pack = lambda form: lambda given, bits, group, symmetric, columns: compressed(*given, bits, group, symmetric, form)
    make_model(
        "compressed-3-32-asym-mixed",
        ct_config("pack-quantized", {
            "group_0": {"targets": ["Linear"], "weights": args(num_bits=3, symmetric=False, strategy="group", group_size=32)},
            "group_1": {"targets": ["re:.*down_proj$"], "weights": args(num_bits=6, symmetric=True, strategy="channel")},
        }),
        lambda key: (6, -1, True, False) if key.endswith("down_proj") else (3, 32, False, False), pack("pack-quantized"))
    inputs = args(num_bits=8, symmetric=False, strategy="token", dynamic=True)
    heads = args(num_bits=6, symmetric=False, strategy="group", group_size=16, dynamic=True)
    make_model(
        "compressed-w8a8-kv6",
        ct_config("int-quantized", {
            "group_0": {
                "targets": ["Linear"], "weights": args(num_bits=8, symmetric=True, strategy="channel"),
                "input_activations": inputs, "format": "int-quantized",
            },
        }, kv_cache_scheme=heads),
        lambda key: (8, -1, True, False), pack("int-quantized"), run_compressed=True)


make_cases()
make_models()
