"""Writes llama-w3, llama-w4a4, opt-w3 and opt-w4a4.json: three training steps of one small block in torch. Run: python make.py [case ..]

README.md describes the files. Seeds are tried in order until no value lies so near to a tie that another order of f32 sums could
decide it otherwise, in any of the four evaluations.
"""

import base64
import json
import math
import pathlib
import sys

import numpy as np
import torch

from block import Margins, Scheme, Shape, clipped_grid, forward, tie_margin, transformed

SHAPES = {"llama": Shape("llama", 32, 4, 2, 8, 48), "opt": Shape("opt", 32, 4, 4, 8, 64)}
SCHEMES = {"w3": Scheme(3, 16, 0), "w4a4": Scheme(4, 0, 4)}
SEEDS = {"llama-w3": 31790, "llama-w4a4": 2018, "opt-w3": 59068, "opt-w4a4": 3294}  # where the search begins
TOKENS, STEPS, CLIPPING_RATE, TRANSFORM_RATE = 12, 3, 1e-2, 5e-3
# in steps of the grid; of f16; and as shares
LEAST = {
    "weights": 5e-5, "activations": 5e-5, "zero": 1e-4, "activation zeros": 1e-4, "scale": 1.5e-3, "extremes": 1e-5,
    "activation extremes": 1e-5, "relu": 1e-6, "gradients": 1e-5,
}


def problem(shape, generator):
    """Weights of a usual spread, some of whose input channels and activations are ten times as large."""

    def normal(*size, spread=1.0):
        return torch.randn(*size, generator=generator) * spread

    block = {}
    for name, (rows, columns) in shape.linears().items():
        spread = torch.exp(0.3 * normal(columns))
        block[f"{name}.weight"] = normal(rows, columns, spread=0.7 / math.sqrt(columns)) * spread
        if shape.family == "opt":
            block[f"{name}.bias"] = normal(rows, spread=0.1)
    x = normal(1, TOKENS, shape.width)
    x[..., [3, 17]] *= 10
    for norm in ("attentionNorm", "mlpNorm"):
        block[f"{norm}.weight"] = torch.exp(0.3 * normal(shape.width))
        if shape.family == "opt":
            block[f"{norm}.bias"] = normal(shape.width, spread=0.3)
    return block, x


def initial(shape, scheme, generator):
    """The parameters where training starts: far enough from neutral that each of them matters."""
    parameters = {}
    for name, size in shape.transform(scheme.activationBits > 0).items():
        parameters[name] = 0.2 * torch.randn(*size, generator=generator)
    for name, (rows, columns) in shape.linears().items():
        groups = columns // scheme.group if scheme.group else 1
        for end in ("upper", "lower"):
            parameters[f"{name}.{end}"] = 1 + 4 * torch.rand(rows, groups, generator=generator)
    return parameters


def low_margins(margins):
    return {kind: value for kind, value in margins.items() if value < LEAST[kind]}


def clear_start(block, parameters, shape, scheme):
    """Whether the weights at the start are clear of ties: a quick look before the whole run."""
    margins = Margins()
    folded = transformed(block, parameters, shape)
    for name in shape.linears():
        grouped = folded[f"{name}.weight"].reshape(*parameters[f"{name}.upper"].shape, -1)
        h, _ = clipped_grid(grouped, parameters[f"{name}.upper"], parameters[f"{name}.lower"], scheme.bits, margins)
        margins.meet("weights", tie_margin(grouped / h))
        if low_margins(margins):
            return False
    return True


def run(shape, scheme, seed):
    """What the fixture holds, or None when a value is near a tie."""
    generator = torch.Generator().manual_seed(seed)
    block, x = problem(shape, generator)
    parameters = initial(shape, scheme, generator)
    if not clear_start(block, parameters, shape, scheme):
        return None
    with torch.no_grad():
        reference = forward(block, x, shape)[0]
        same = forward(block, x, shape, parameters)[0]
    change = ((same - reference).abs().max() / reference.abs().max()).item()
    assert change < 1e-5, f"the transformation is not an equivalence: {change}"
    target = reference + 0.02 * reference.std() * torch.randn(reference.shape, generator=generator)

    start = {name: p.clone() for name, p in parameters.items()}
    for p in parameters.values():
        p.requires_grad_()
    transform = list(shape.transform(scheme.activationBits > 0))
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameters[name] for name in transform], "lr": TRANSFORM_RATE},
            {"params": [p for name, p in parameters.items() if name not in transform], "lr": CLIPPING_RATE},
        ],
        betas=(0.9, 0.999), eps=1e-8, weight_decay=0,
    )
    margins, losses, output, gradients = Margins(), [], None, {}
    for step in range(STEPS):
        y, _, _ = forward(block, x, shape, parameters, scheme, margins)
        loss = (y - target).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            output = y.detach()
            gradients = {name: p.grad.clone() for name, p in parameters.items()}
            for g in gradients.values():  # AdamW's first step is a sign
                margins.meet("gradients", (g.abs().min() / g.pow(2).mean().sqrt()).item())
        if low_margins(margins):
            return None
        losses.append(loss.item())
        optimizer.step()
    with torch.no_grad():
        y, folded, stored = forward(block, x, shape, parameters, scheme, margins)
    if low_margins(margins):
        return None
    losses.append((y - target).pow(2).mean().item())
    weights = {f"{name}.weight" for name in shape.linears()}
    quantized = {name: {"codes": codes.to(torch.uint8), "scale": h, "zero": z} for name, (codes, h, z) in stored.items()}
    result = {
        "seed": seed,
        "x": x, "target": target, "reference": reference, "block": block, "parameters": start,
        "output": output, "losses": losses, "gradients": gradients,
        "trained": {name: p.detach() for name, p in parameters.items()},
        "folded": {name: t for name, t in folded.items() if name not in weights},
        "quantized": quantized,
        "trainedOutput": y,
    }
    return result, margins


def encode(value):
    if isinstance(value, torch.Tensor):
        array = value.detach().contiguous().numpy()
        dtype = {np.dtype("float32"): "f32", np.dtype("uint8"): "u8"}[array.dtype]
        return {"shape": list(array.shape), "dtype": dtype, "data": base64.b64encode(array.tobytes()).decode()}
    if isinstance(value, dict):
        return {key: encode(entry) for key, entry in value.items()}
    return value


torch.set_num_threads(1)
for family, shape in SHAPES.items():
    for name, scheme in SCHEMES.items():
        case = f"{family}-{name}"
        if sys.argv[1:] and case not in sys.argv[1:]:
            continue
        seed = SEEDS[case]
        while (found := run(shape, scheme, seed)) is None:
            seed += 1
        result, margins = found
        document = {"shape": {**vars(shape), "tokens": TOKENS}, "scheme": vars(scheme), **encode(result)}
        path = pathlib.Path(__file__).with_name(f"{case}.json")
        path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        print(case, "seed", seed, "losses", result["losses"], f"{path.stat().st_size} bytes")
        print("  margins", {kind: float(f"{value:.2g}") for kind, value in margins.items()}, flush=True)
