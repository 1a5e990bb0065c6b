"""Small layers in the layout as GPTQModel writes it: one flat setting, int32 permutation, a padded last group.

    python gptqmodel.py .../gptqmodel/utils/vptq.py

Groups and packing are GPTQModel's own (7.7.0, that file); the weights are decoded here, in numpy. Writes `gptqmodel.safetensors`
and `gptqmodel.json`. Needs torch, numpy and safetensors.
"""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("gptqmodel_vptq", sys.argv[1])
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)

# rows, columns, v, K, R, outlier v0 and k0, npercent, group_size, group_num, norm, perm, dtype
CASES = {
    "one-group": (16, 40, 4, 64, 16, -1, -1, 0, -1, -1, True, True, "bfloat16"),
    "last-group-short": (18, 50, 4, 32, -1, -1, -1, 0, -1, 4, False, True, "float16"),
    "a-group-empty": (8, 9, 2, 8, -1, -1, -1, 0, -1, 4, False, False, "float16"),
    "group-size-and-outliers": (21, 50, 5, 16, 4, 2, 16, 4, 16, -1, True, True, "bfloat16"),
    "outliers-take-the-rest": (12, 53, 4, 16, -1, 3, 8, 2, -1, 5, False, False, "float16"),
}

random = np.random.default_rng(7)
settings = {}
stored = {}
for case, (rows, columns, v, K, R, v0, k0, percent, group_size, group_num, norm, perm, dtype) in CASES.items():
    enabled = theirs.vptq_outlier_enabled(npercent=percent, outlier_vector_len=max(v0, 0), outlier_num_centroids=k0)
    outliers, width, groups = theirs.vptq_group_setting(
        columns, npercent=percent, group_size=group_size, group_num=group_num, enable_outlier=enabled
    )
    vectors = math.ceil(rows / v)

    def real(*shape):
        return torch.from_numpy(random.integers(-255, 256, shape) / 64).to(getattr(torch, dtype))

    def index(size, *shape):
        return torch.from_numpy(random.integers(0, size, shape))

    main = index(K, groups, vectors, width)
    rest = index(R, groups, vectors, width) if R > 0 else None
    bits = theirs.vptq_index_bits(K), theirs.vptq_index_bits(R) if R > 0 else 0
    tensors = {
        "indices": theirs.pack_vptq_indices(main, bits[0], res_indices=rest, res_bits=bits[1]),
        "centroids.weight": real(groups, K * v),
    }
    if R > 0:
        tensors["res_centroids.weight"] = real(groups, R * v)
    if enabled:
        tensors["outlier_indices"] = index(k0, 1, math.ceil(rows / v0), outliers).to(torch.int32)
        tensors["outlier_centroids.weight"] = real(1, k0 * v0)
    if perm:
        tensors["perm"] = torch.from_numpy(random.permutation(columns)).to(torch.int32)
    if norm:
        tensors["weight_scale"] = real(columns)
        tensors["weight_bias"] = real(columns)

    wide = {name: t.float().numpy() if t.is_floating_point() else t.numpy() for name, t in tensors.items()}
    weights = np.zeros((rows, columns), np.float32)
    for position in range(columns):
        column = wide["perm"][position] if perm else position
        if position < outliers:
            book = wide["outlier_centroids.weight"].reshape(k0, v0)
            values = book[wide["outlier_indices"][0, :, position]]
        else:
            g, j = divmod(position - outliers, width)
            values = wide["centroids.weight"][g].reshape(K, v)[main[g, :, j].numpy()]
            if R > 0:
                values = values + wide["res_centroids.weight"][g].reshape(R, v)[rest[g, :, j].numpy()]
        weights[:, column] = values.reshape(-1)[:rows]
    if norm:
        weights = weights * wide["weight_scale"] + wide["weight_bias"]

    for name, value in tensors.items():
        stored[f"{case}.{name}"] = value.contiguous()
    stored[f"expected.{case}.weight"] = torch.from_numpy(weights)
    settings[case] = {
        "features": [rows, columns],
        "config": {
            "quant_method": "vptq",
            "bits": 2,
            "vector_lens": [v0, v],
            "num_centroids": [k0, K],
            "num_res_centroids": [-1, R],
            "npercent": percent,
            "group_size": group_size,
            "group_num": group_num,
            "enable_norm": norm,
            "norm_dim": 0,
            "enable_perm": perm,
        },
    }

save_file(stored, HERE / "gptqmodel.safetensors", metadata={"format": "pt"})
(HERE / "gptqmodel.json").write_text(json.dumps(settings, indent=1) + "\n")
