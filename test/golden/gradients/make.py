"""Writes gradients.json: operations of training and their gradients by torch's autograd, in f64 from f32 inputs, with 9 digits.
Run beside this file: python make.py"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

generator = torch.Generator().manual_seed(20250411)


def normal(*shape, factor=1.0):
    return torch.randn(*shape, generator=generator) * factor


def plain(tensor):
    data = [float(f"{x:.9g}") for x in tensor.detach().double().reshape(-1).tolist()]
    return {"shape": list(tensor.shape), "data": data}


def differentiate(operation, inputs, grad=None):
    """Result of the operation, a gradient for it, and what autograd makes of it for each input; all by name."""
    leaves = {name: x.double().requires_grad_(True) for name, x in inputs.items()}
    output = operation(**leaves)
    grad = normal(*output.shape) if grad is None else grad
    found = torch.autograd.grad(output, list(leaves.values()), grad.double())
    return {
        "inputs": {name: plain(x) for name, x in inputs.items()},
        "output": plain(output),
        "grad": plain(grad),
        "gradients": {name: plain(x) for name, x in zip(leaves, found)},
    }


def attention(batch, tokens, heads, key_heads, size, window=None, slopes=None):
    scale = size**-0.5
    distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]  # key less query
    seen = distance <= 0
    if window is not None:
        seen &= distance > -window
    bias = torch.zeros(heads, tokens, tokens, dtype=torch.float64)
    if slopes is not None:
        bias = slopes.double()[:, None, None] * distance
    mask = bias.masked_fill(~seen, float("-inf"))

    def attend(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(heads // key_heads, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)

    inputs = {
        "q": normal(batch, tokens, heads, size),
        "k": normal(batch, tokens, key_heads, size),
        "v": normal(batch, tokens, key_heads, size),
    }
    return {
        "scale": scale,
        "window": window,
        "slopes": None if slopes is None else plain(slopes),
        **differentiate(attend, inputs),
    }


def layer_norm(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-3)


def rms_norm(x, weight):
    return F.rms_norm(x, x.shape[-1:], weight, 1e-3)


def adamw():
    options = {"rate": 3e-2, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-6, "decay": 0.2}
    start = normal(11)
    steps = [normal(11), normal(11, factor=0.1), normal(11, factor=3.0)]
    parameter = start.double().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [parameter],
        lr=options["rate"],
        betas=(options["beta1"], options["beta2"]),
        eps=options["epsilon"],
        weight_decay=options["decay"],
    )
    trained = []
    for grad in steps:
        parameter.grad = grad.double()
        optimizer.step()
        trained.append(plain(parameter))
    state = optimizer.state[parameter]
    return {
        "options": options,
        "start": plain(start),
        "gradients": [plain(x) for x in steps],
        "trained": trained,
        "first": plain(state["exp_avg"]),
        "second": plain(state["exp_avg_sq"]),
    }


numbers = {
    "attention": [
        attention(2, 7, 4, 2, 6),
        attention(1, 9, 3, 1, 5, window=3),
        attention(1, 8, 4, 4, 4, slopes=2.0 ** -torch.arange(1, 5).float()),
        attention(1, 9, 4, 2, 4, window=5, slopes=2.0 ** -torch.arange(1, 5).float()),
    ],
    "layerNorm": differentiate(layer_norm, {"x": normal(3, 4, 7) + 1, "weight": normal(7), "bias": normal(7)}),
    "rmsNorm": differentiate(rms_norm, {"x": normal(3, 4, 7), "weight": normal(7)}),
    "gelu": differentiate(F.gelu, {"input": normal(40, factor=3.0)}),
    "siluMultiply": differentiate(
        lambda gate, up: F.silu(gate) * up, {"gate": normal(5, 6, factor=3.0), "up": normal(5, 6)}
    ),
    "adamw": adamw(),
}
text = json.dumps(numbers)
Path(__file__).with_name("gradients.json").write_text(text + "\n")
print(f"{len(text)} bytes")
