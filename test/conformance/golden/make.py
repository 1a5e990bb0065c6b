"""Results of engine operations by torch, transformers, numpy and scikit-learn: writes numbers.json beside this file.

Real inputs are random f32 numbers; everything real is computed in f64 and stored with 9 digits, codes in f32 arithmetic as
torch rounds it. Needs torch, transformers, numpy and scikit-learn.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import pairwise_distances_argmin
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

rng = np.random.default_rng(7)


def normal(*shape, factor=1.0):
    return (rng.standard_normal(shape) * factor).astype(np.float32)


def plain(value):
    """Arrays as {shape, data}; f32 inputs and f64 results alike lose nothing that an f32 holds."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1).tolist()
        data = [float(f"{x:.9g}") for x in flat] if value.dtype.kind == "f" else flat
        return {"shape": list(value.shape), "data": data}
    return value


def f64(array):
    return torch.from_numpy(array).double()


def factors():
    x = normal(40, 17)
    a = (x.T.astype(np.float64) @ x / 40 + 0.05 * np.eye(17)).astype(np.float32)
    lower = np.linalg.cholesky(a.astype(np.float64)).astype(np.float32)
    return {"a": a, "cholesky": lower, "inverse": np.linalg.inv(lower.astype(np.float64))}


def products():
    a, b, c, w = normal(9, 21), normal(21, 7), normal(9, 7), np.abs(normal(9))
    wide = [array.astype(np.float64) for array in (a, b, c, w)]
    return {
        "a": a,
        "b": b,
        "c": c,
        "w": w,
        "matmul": 0.75 * wide[0] @ wide[1] + wide[2],
        "gram": wide[0].T @ np.diag(wide[3]) @ wide[0],
    }


def attention(tokens, key_length, capacity, heads, key_value_heads, size, window=None):
    q = normal(2, tokens, heads, size)
    k, v = normal(2, capacity, key_value_heads, size), normal(2, capacity, key_value_heads, size)
    query = torch.arange(tokens)[:, None] + key_length - tokens
    key = torch.arange(key_length)[None, :]
    mask = key <= query
    if window is not None:
        mask &= key > query - window
    out = F.scaled_dot_product_attention(
        f64(q).transpose(1, 2),
        f64(k)[:, :key_length].transpose(1, 2),
        f64(v)[:, :key_length].transpose(1, 2),
        attn_mask=mask,
        scale=0.4,
        enable_gqa=True,
    )
    return {"q": q, "k": k, "v": v, "keyLength": key_length, "window": window, "scale": 0.4, "out": out.transpose(1, 2)}


def decoder():
    x, weight = normal(3, 11), normal(11)
    gate, up = normal(5, 7, factor=4), normal(5, 7)
    logits, reference = normal(6, 19, factor=5), normal(6, 19, factor=5)
    targets = rng.integers(0, 19, 6)
    heads = normal(2, 5, 3, 8)
    angles = normal(9, 4, factor=2).astype(np.float64)
    start = 3
    both = torch.from_numpy(np.concatenate([angles, angles], 1)[start : start + 5])
    rotated, _ = apply_rotary_pos_emb(
        f64(heads).transpose(1, 2), f64(heads).transpose(1, 2), both.cos()[None], both.sin()[None]
    )
    return {
        "x": x,
        "weight": weight,
        "rmsNorm": F.rms_norm(f64(x), (11,), f64(weight), 1e-3),
        "gate": gate,
        "up": up,
        "siluMultiply": F.silu(f64(gate)) * f64(up),
        "logits": logits,
        "reference": reference,
        "targets": targets,
        "crossEntropy": F.cross_entropy(f64(logits), torch.from_numpy(targets), reduction="none"),
        "klDivergence": F.kl_div(
            F.log_softmax(f64(logits), 1), F.log_softmax(f64(reference), 1), reduction="none", log_target=True
        ).sum(1),
        "heads": heads,
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "start": start,
        "rope": rotated.transpose(1, 2),
    }


def codebook():
    vectors, centroids = normal(50, 6), normal(23, 6)
    return {"vectors": vectors, "centroids": centroids, "nearest": pairwise_distances_argmin(vectors, centroids)}


def affine(bits, symmetric):
    weights = torch.from_numpy(normal(16, 9, factor=0.05))  # [I, O], groups of 8 columns
    weights[:8, 0] = 0
    weights[:, 1] = weights[:, 1].abs()
    weights[:, 2] *= 1e-5
    top = 2**bits - 1
    grouped = weights.reshape(2, 8, 9)
    low, high = grouped.amin(1).clamp(max=0), grouped.amax(1).clamp(min=0)
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scale = (span / top).half().float()
    scale[(scale == 0) & (span > 0)] = 2.0**-14
    scale[span == 0] = 1
    zero = torch.full_like(scale, 2.0 ** (bits - 1)) if symmetric else torch.round(-low / scale).clamp(0, top)
    codes = (torch.round(grouped / scale[:, None]) + zero[:, None]).clamp(0, top)
    return {
        "bits": bits,
        "symmetric": symmetric,
        "weights": weights,
        "scale": scale,
        "zero": zero,
        "codes": codes.reshape(16, 9).int(),
        "quantized": ((codes - zero[:, None]) * scale[:, None]).reshape(16, 9),
    }


numbers = {
    "factors": factors(),
    "products": products(),
    "attention": [
        attention(5, 5, 5, 4, 2, 6),
        attention(3, 9, 12, 6, 2, 5),
        attention(1, 7, 8, 2, 1, 8),
        attention(7, 7, 7, 3, 3, 4, window=3),
        attention(4, 10, 10, 2, 2, 4, window=5),
    ],
    "decoder": decoder(),
    "codebook": codebook(),
    "affine": [affine(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (False, True)],
}
numbers["attention"] = [plain(one) for one in numbers["attention"]]
numbers["affine"] = [plain(one) for one in numbers["affine"]]
path = Path(__file__).with_name("numbers.json")
path.write_text(json.dumps(plain(numbers)) + "\n")
