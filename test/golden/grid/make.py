"""Writes grid.json: affine grids, fake quantization and their straight-through gradients by torch's autograd, written from the
definitions in src/engine/engine.ts. Run beside this file: python make.py"""
import json
from pathlib import Path

import torch

generator = torch.Generator().manual_seed(20250102)


def normal(*shape, factor=1.0):
    return torch.randn(*shape, generator=generator) * factor


def leaf(x):
    return x.clone().requires_grad_(True)


class Straight(torch.autograd.Function):
    """The value of `rounded` to the last bit, the gradient of x."""

    @staticmethod
    def forward(_context, x, rounded):
        return rounded.clone()

    @staticmethod
    def backward(_context, grad):
        return grad, None


def ste(x, rounded):
    return Straight.apply(x, rounded.detach())


def clamp(x, low, high):
    """Torch has changed what its own clamp does at the bounds: here they belong to the inside."""
    return torch.where((x >= low) & (x <= high), x, x.detach().clamp(low, high))


def ste_round(x):
    return ste(x, x.round())


def relu_extreme(x):
    """max(0, max x) whose gradient goes to the first of equals and never to a 0."""
    return torch.relu(x.gather(1, first_largest(x))[:, 0])


def first_largest(x):
    """torch.argmax does not say which of equals it takes."""
    largest = x == x.amax(1, keepdim=True)
    return largest.to(torch.int8).cumsum(1).eq(0).sum(1, keepdim=True).clamp(max=x.shape[1] - 1)


def clipped_range(w, upper, lower):
    high, low = relu_extreme(w), -relu_extreme(-w)
    if upper is None:
        return high, low
    # sigmoid and product in double, rounded to f32 once
    return (upper.double().sigmoid() * high.double()).float(), (lower.double().sigmoid() * low.double()).float()


def larger(high, low):
    """max(high, -low); of equals high gets the gradient."""
    return torch.where(high >= -low, high, -low)


def clipped_grid(w, upper, lower, bits, symmetric):
    """One group of all rows: w [O, g] -> scale, zero [O]."""
    levels = 2**bits - 1
    high, low = clipped_range(w, upper, lower)
    width = 2 * larger(high, low) if symmetric else high - low
    exact = width / levels
    half = exact.half().float()
    kept = ste(exact, half)
    step = torch.where(half == 0, torch.full_like(half, 2.0**-14), torch.where(half > 65504, torch.full_like(half, 65504.0), kept))
    step = torch.where(width == 0, torch.ones_like(step), step)
    if symmetric:
        return step, torch.full_like(step, 2.0 ** (bits - 1))
    return step, (-low / step).round().clamp(0, levels).detach()


def grid_of(w, upper, lower, bits, group, symmetric):
    pairs = [
        clipped_grid(part, None if upper is None else upper[:, g], None if lower is None else lower[:, g], bits, symmetric)
        for g, part in enumerate(w.split(group, 1))
    ]
    return torch.stack([scale for scale, _ in pairs], 1), torch.stack([zero for _, zero in pairs], 1)


def fake_quantize(w, scale, zero, bits, group):
    levels = 2**bits - 1
    step, origin = (x.repeat_interleave(group, 1)[:, : w.shape[1]] for x in (scale, zero))
    shift = ste_round(clamp(origin, 0, levels))
    code = clamp(ste_round(w / step) + shift, 0, levels)
    return (code - shift) * step, code


def fake_quantize_rows(x, bits, symmetric):
    levels = 2**bits - 1
    high, low = relu_extreme(x), -relu_extreme(-x)
    if symmetric:
        # the first element of the largest magnitude
        magnitude = x.gather(1, first_largest(x.abs()))[:, 0].abs()
        step = (2 * magnitude / levels).clamp(min=1e-8)[:, None]
        half = 2 ** (bits - 1)
        return clamp(ste_round(x / step), -half, half - 1) * step
    step = ((high - low) / levels).clamp(min=1e-8)
    zero = (-low / step).round().clamp(0, levels).detach()[:, None]
    step = step[:, None]
    return (clamp(ste_round(x / step) + zero, 0, levels) - zero) * step


def weights(rows, columns):
    """Rows of unlike kinds: usual, all positive, all negative, all zero, often half-way, tiny, with a lone extreme."""
    w = normal(rows, columns, factor=0.05)
    w[1] = w[1].abs()
    w[2] = -w[2].abs()
    w[3] = 0
    w[4] = (w[4] * 40).round() / 2
    w[5] *= 1e-9
    w[6, 0] = 1
    return w


def numbers(x):
    return None if x is None else {"shape": list(x.shape), "data": [float(f"{v:.9g}") for v in x.detach().reshape(-1).tolist()]}


def store(**items):
    return {key: numbers(item) if item is None or torch.is_tensor(item) else item for key, item in items.items()}


grids, given, rows = [], [], []
for bits in (2, 3, 4, 8):
    for symmetric in (False, True):
        for group, clipped in ((4, True), (11, True), (4, False)):
            w = leaf(weights(7, 11))
            count = -(-11 // group)
            upper = leaf(normal(7, count) + 2) if clipped else None
            lower = leaf(normal(7, count) + 2) if clipped else None
            scale, zero = grid_of(w, upper, lower, bits, group, symmetric)
            of_scale = normal(7, count)
            inputs = [w] + ([upper, lower] if clipped else [])
            from_scale = torch.autograd.grad((scale * of_scale).sum(), inputs, retain_graph=True)
            out, code = fake_quantize(w, scale, zero, bits, group)
            grad = normal(7, 11)
            through = torch.autograd.grad((out * grad).sum(), inputs)
            none = [None, None]
            grids.append(
                store(
                    bits=bits, group=group, symmetric=symmetric, weights=w, upper=upper, lower=lower, scale=scale, zero=zero,
                    scaleGrad=of_scale, gradWeights=from_scale[0], gradUpper=[*from_scale, *none][1],
                    gradLower=[*from_scale, *none][2], codes=code, quantized=out, grad=grad, allWeights=through[0],
                    allUpper=[*through, *none][1], allLower=[*through, *none][2],
                )
            )
    for group in (4, 11):
        w = leaf(weights(7, 11))
        count = -(-11 // group)
        scale = leaf((normal(7, count, factor=0.1).abs() + 0.03) / 2**bits)
        zero = leaf(torch.rand(7, count, generator=generator) * (2**bits + 6) - 3)
        out, code = fake_quantize(w, scale, zero, bits, group)
        grad = normal(7, 11)
        of_w, of_scale, of_zero = torch.autograd.grad((out * grad).sum(), [w, scale, zero])
        given.append(
            store(
                bits=bits, group=group, weights=w, scale=scale, zero=zero, codes=code, quantized=out, grad=grad,
                gradWeights=of_w, gradScale=of_scale, gradZero=of_zero,
            )
        )
    for symmetric in (False, True):
        x = weights(7, 9)
        x[4, 3:6] = -x[4].abs().max()  # equal extremes
        x = leaf(x)
        out = fake_quantize_rows(x, bits, symmetric)
        grad = normal(7, 9)
        rows.append(store(bits=bits, symmetric=symmetric, x=x, out=out, grad=grad, gradX=torch.autograd.grad((out * grad).sum(), [x])[0]))

path = Path(__file__).with_name("grid.json")
path.write_text(json.dumps({"grids": grids, "given": given, "rows": rows}, separators=(",", ":")) + "\n")
print(path.stat().st_size)
