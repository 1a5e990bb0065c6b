"""Decodes VPTQ layers with the vptq package itself, for comparison with our reader.

    python decode.py

Needs torch, numpy, safetensors, transformers==4.49.0 and vptq==0.0.5.post1 on a machine without CUDA (its torch path). Run
trim.py first. Writes
- `dequantized.json`: SHA-256 of the float32 weights of every layer of the two trimmed checkpoints, and a few of the values;
- `layers.safetensors`, `layers.json`: small random layers in the published layout, packed by the package's pack_index: padding,
  residuals, outliers, column groups, odd widths up to 32 bits; with their indices and their decoded weights.
"""

import hashlib
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

# pack.py imports a class of this package and does not use it here
stub = types.ModuleType("sentence_transformers")
stub.SentenceTransformer = types.ModuleType("sentence_transformers.SentenceTransformer")
stub.SentenceTransformer.SentenceTransformer = object
sys.modules["sentence_transformers"] = stub
sys.modules["sentence_transformers.SentenceTransformer"] = stub.SentenceTransformer

from vptq import ops  # noqa: E402
from vptq.utils.pack import pack_index  # noqa: E402

torch.set_num_threads(1)
HERE = Path(__file__).parent


def decode(setting, tensors):
    """Float32 weights of a layer: 16-bit tensors are widened first, as when a model is loaded in float32."""
    rows = setting["out_features"]
    outlier_length, length = setting["vector_lens"]
    outlier_codewords, codewords = setting["num_centroids"]
    residual = setting["num_res_centroids"][1]
    groups = setting["group_num"]
    wide = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    has_outliers = outlier_length > 1 and outlier_codewords > 0
    return ops.dequant(
        indices=wide["indices"],
        centroids=wide["centroids.weight"].view(groups, codewords, length),
        outlier_indices=wide.get("outlier_indices"),
        outlier_centroids=wide.get("outlier_centroids.weight"),
        res_indices=wide.get("res_indices"),
        res_centroids=wide.get("res_centroids.weight"),
        perm=wide.get("perm"),
        weight_scale=wide.get("weight_scale"),
        weight_bias=wide.get("weight_bias"),
        is_indice_packed=setting["is_indice_packed"],
        enable_outlier=has_outliers,
        enable_residual=residual > 0,
        enable_perm=setting["enable_perm"],
        enable_norm=setting["enable_norm"],
        num_centroids=codewords,
        num_outlier_centroids=outlier_codewords,
        num_res_centroids=residual,
        padding=(-rows) % length,
        outlier_padding=(-rows) % outlier_length if has_outliers else 0,
        num_codebooks=groups,
        group_size=setting["group_size"],
        outlier_size=setting["outlier_size"],
        vector_len=length,
        outlier_vector_len=outlier_length,
    ).contiguous()


def digest(weights):
    return hashlib.sha256(weights.numpy().astype("<f4").tobytes()).hexdigest()


def of_layer(tensors, layer):
    return {name[len(layer) + 1 :]: value for name, value in tensors.items() if name.startswith(layer + ".")}


checkpoints = {}
for name in ["v4k256-perm-norm", "v8k256R256-perm-norm"]:
    config = json.loads((HERE / name / "config.json").read_text())
    tensors = load_file(HERE / name / "quantized.safetensors")
    layers = {}
    for layer, setting in config["quantization_config"]["config_for_layers"].items():
        weights = decode(setting, of_layer(tensors, layer))
        assert list(weights.shape) == [setting["out_features"], setting["in_features"]]
        flat = weights.flatten()
        layers[layer] = {"sha256": digest(weights), "first": flat[:3].tolist(), "last": flat[-3:].tolist()}
    checkpoints[name] = layers
(HERE / "dequantized.json").write_text(json.dumps(checkpoints, indent=1) + "\n")

# rows, columns, v, K, R, outliers (columns, v0, k0), groups, norm, perm, dtype, bias, packed
CASES = {
    "plain": (16, 40, 4, 16, 0, None, 1, False, False, "float16", False, True),
    "padded": (18, 44, 4, 256, 0, None, 1, True, True, "float16", False, True),
    "residual": (24, 48, 8, 256, 256, None, 1, True, True, "float16", True, True),
    "odd-bits": (21, 50, 6, 4096, 128, None, 1, True, False, "float16", False, True),
    "wide": (12, 37, 1, 65536, 65536, None, 1, False, True, "float16", False, True),
    "28-bits": (30, 64, 2, 4096, 4096, None, 1, True, True, "bfloat16", False, True),
    "outliers": (18, 45, 4, 64, 16, (5, 4, 300), 1, True, True, "float16", False, True),
    "outlier-padding": (22, 64, 4, 32, 0, (4, 6, 1000), 1, False, True, "float16", False, True),
    "groups": (16, 60, 4, 64, 64, None, 3, True, True, "float16", False, True),
    "outliers-and-groups": (27, 70, 5, 128, 8, (6, 2, 16), 4, True, True, "bfloat16", True, True),
    "unpacked": (16, 40, 4, 256, 64, None, 2, True, False, "float16", False, False),
}

random = np.random.default_rng(20261125)
settings = {}
stored = {}
for case, (rows, columns, length, codewords, residual, outliers, groups, norm, perm, dtype, bias, packed) in CASES.items():
    outlier_columns = outliers[0] if outliers else 0
    width = (columns - outlier_columns) // groups
    assert outlier_columns + groups * width == columns
    vector_rows = math.ceil(rows / length)

    def real(*shape):
        # few different values, so that the file compresses; the checkpoints' own have all their digits
        return torch.from_numpy(random.integers(-2047, 2048, shape) / 512).to(getattr(torch, dtype))

    def index(size, *shape):
        return torch.from_numpy(random.integers(0, size, shape, dtype=np.uint16))

    tensors = {}
    main = index(codewords, groups, vector_rows, width)
    rest = index(residual, groups, vector_rows, width) if residual else None
    bits = [int(math.log2(codewords)), int(math.log2(residual)) if residual else 0]
    if packed:
        tensors["indices"] = pack_index(main, bits[0], rest, bits[1])
    else:
        tensors["indices"] = main.view(torch.int16)
        if residual:
            tensors["res_indices"] = rest.view(torch.int16)
    tensors["centroids.weight"] = real(groups, codewords * length)
    if residual:
        tensors["res_centroids.weight"] = real(groups, residual * length)
    if outliers:
        _, outlier_length, outlier_codewords = outliers
        outlier_rows = math.ceil(rows / outlier_length)
        tensors["outlier_indices"] = index(outlier_codewords, 1, outlier_rows, outlier_columns).view(torch.int16)
        tensors["outlier_centroids.weight"] = real(1, outlier_codewords * outlier_length)
    if perm:
        order = torch.from_numpy(random.permutation(columns))
        tensors["perm"] = order.to(torch.uint16).view(torch.int16) if packed else order
    if norm:
        tensors["weight_scale"] = real(columns)
        tensors["weight_bias"] = real(columns)
    if bias:
        tensors["bias"] = real(rows)
    setting = {
        "in_features": columns,
        "out_features": rows,
        "bias": bias,
        "vector_lens": [outliers[1] if outliers else -1, length],
        "num_centroids": [outliers[2] if outliers else -1, codewords],
        "num_res_centroids": [-1, residual or -1],
        "group_num": groups,
        "group_size": width,
        "outlier_size": outlier_columns,
        "enable_norm": norm,
        "enable_perm": perm,
        "is_indice_packed": packed,
        "indices_as_float": False,
    }
    weights = decode(setting, tensors)
    settings[case] = setting
    for name, value in tensors.items():
        stored[f"{case}.{name}"] = value.contiguous()
    stored[f"expected.{case}.weight"] = weights
    stored[f"expected.{case}.main"] = main.to(torch.int32)
    if residual:
        stored[f"expected.{case}.residual"] = rest.to(torch.int32)

save_file(stored, HERE / "layers.safetensors", metadata={"format": "pt"})
(HERE / "layers.json").write_text(json.dumps(settings, indent=1) + "\n")
print(f"{sum(map(len, checkpoints.values()))} layers decoded, {len(CASES)} layers made")
