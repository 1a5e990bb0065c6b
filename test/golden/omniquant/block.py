"""One decoder block with learned weight clipping and a learned equivalent transformation, in plain torch: the peer of the product.

Written from the formulas of OmniQuant (arXiv 2308.13137, eqs. 2-5) as the product states them: scales tied over rotary pairs and
repeated over grouped heads, one more scale between the MLP's two linears, zero points inside the grid. Letters: O output rows,
I input columns, G groups, D width, F MLP width, H heads, K key-value heads (K also names 2^bits - 1), d head size, T tokens.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional


@dataclass
class Shape:
    family: str  # "llama" | "opt"
    width: int
    heads: int
    keyValueHeads: int
    headSize: int
    mlp: int
    epsilon: float = 1e-5
    ropeTheta: float = 1e4

    def linears(self):
        """[O, I] of each linear."""
        queries, keys = self.heads * self.headSize, self.keyValueHeads * self.headSize
        gate = {"gate": (self.mlp, self.width)} if self.family == "llama" else {}
        return {
            "query": (queries, self.width), "key": (keys, self.width), "value": (keys, self.width), "output": (self.width, queries),
            **gate, "up": (self.mlp, self.width), "down": (self.width, self.mlp),
        }

    def transform(self, activations=True):
        """
        Shape of each parameter of the transformation, log scales and shifts. Without quantized activations there is no site between
        query and key: whole rows are scaled, their grids with them, and gradients are nothing but rounding.
        """
        pairs = self.keyValueHeads * self.headSize
        shapes = {
            "scale.attentionNorm": (self.width,), "scale.value": (pairs,), "scale.mlpNorm": (self.width,), "scale.mlp": (self.mlp,),
        }
        if activations:
            shapes["scale.queryKey"] = (self.keyValueHeads, self.headSize // 2) if self.family == "llama" else (pairs,)
        if self.family == "opt":
            shapes |= {"shift.attentionNorm": (self.width,), "shift.value": (pairs,), "shift.mlpNorm": (self.width,)}
        return shapes


@dataclass
class Scheme:
    bits: int
    group: int  # columns; 0: all of a row
    activationBits: int  # 0: activations stay as they are


def tie_margin(t):
    """Least distance of values to half-way between whole numbers."""
    return (t.detach() - t.detach().floor() - 0.5).abs().min().item()


class Margins(dict):
    """The least margins met so far, by kind: what f32 rounding elsewhere must stay below to come to the same codes."""

    def meet(self, kind, value):
        self[kind] = min(self.get(kind, math.inf), value)


def round_straight(t):
    return t + (t.round() - t).detach()


def largest(x):
    """Of each row, [.., C] -> [.., 1]; the gradient goes to the first of equals."""
    return x.gather(-1, x.argmax(-1, keepdim=True))


def smallest(x):
    return x.gather(-1, x.argmin(-1, keepdim=True))


def top_gap(x):
    """
    Least relative gap between the largest of a row [.., C] and the next that is not equal to it, over rows whose largest is above 0.
    Equal ones are copies (what the first token attends to is its own v, once for each head of a group).
    """
    x = x.detach()
    top = x.amax(-1, keepdim=True)
    rest = x.masked_fill(x == top, -math.inf).amax(-1, keepdim=True)
    gap = ((top - rest) / top)[top > 0]
    return gap.min().item() if len(gap) else math.inf


def clipped_grid(weight, upper, lower, bits, margins=None):
    """weight [O, G, n], logits [O, G] or None -> h, z [O, G, 1]; h has gradients, z is a constant."""
    most = 2**bits - 1
    high = largest(weight).clamp(min=0)
    low = smallest(weight).clamp(max=0)
    if upper is not None:
        high = high * torch.sigmoid(upper).unsqueeze(-1)
        low = low * torch.sigmoid(lower).unsqueeze(-1)
    exact = (high - low) / most
    h = (exact + (exact.half().to(exact.dtype) - exact).detach()).clamp(2.0**-14, 65504)
    zero = (-low / h).detach()
    if margins is not None:
        half = exact.detach().half()
        spacing = torch.exp2(torch.floor(torch.log2(half.float())) - 10)
        margins.meet("scale", tie_margin(exact / spacing))
        margins.meet("zero", tie_margin(zero))
        margins.meet("extremes", min(top_gap(weight), top_gap(-weight)))
    return h, zero.round().clamp(0, most)


def codes_of(t, z, most):
    """clamp(round(t) + z, 0, most); the gradient of a code at an end that was not clamped passes, whatever torch.clamp does there."""
    codes = round_straight(t) + z
    inside = (codes >= 0) & (codes <= most)
    return torch.where(inside, codes, codes.detach().clamp(0, most))


def fake_quantize(weight, upper, lower, scheme, margins=None):
    """weight [O, I] -> the same, straight-through, and (codes [O, I], scale [O, G], zero [O, G])."""
    rows, columns = weight.shape
    most = 2**scheme.bits - 1
    grouped = weight.reshape(rows, -1, scheme.group or columns)
    h, z = clipped_grid(grouped, upper, lower, scheme.bits, margins)
    t = grouped / h
    if margins is not None:
        margins.meet("weights", tie_margin(t))
    codes = codes_of(t, z, most)
    parts = codes.detach().reshape(rows, columns), h.detach().squeeze(-1), z.squeeze(-1)
    return ((codes - z) * h).reshape(rows, columns), parts


def fake_quantize_rows(x, bits, margins=None):
    """Rows of the last axis, each on its own min-max grid; gradients also go through the extremes."""
    if not bits:
        return x
    most = 2**bits - 1
    low, high = smallest(x).clamp(max=0), largest(x).clamp(min=0)
    h = ((high - low) / most).clamp(min=1e-8)
    zero = (-low / h).detach()
    t = x / h
    if margins is not None:
        margins.meet("activations", tie_margin(t))
        margins.meet("activation zeros", tie_margin(zero))
        margins.meet("activation extremes", min(top_gap(x), top_gap(-x)))
    z = zero.round().clamp(0, most)
    return (codes_of(t, z, most) - z) * h


def transformed(block, parameters, shape):
    """Norms and linears after the equivalent transformation, before quantization; keys as in `block`."""
    opt = shape.family == "opt"
    copies = shape.heads // shape.keyValueHeads
    sites = {name: p for name, p in (parameters or {}).items() if name.startswith(("scale.", "shift."))}
    if not sites:
        return dict(block)
    scale = {name[len("scale.") :]: torch.exp(p) for name, p in sites.items() if name.startswith("scale.")}
    delta = {name[len("shift.") :]: p for name, p in sites.items() if name.startswith("shift.")}

    def over_heads(values):
        """[K * d] -> [H * d], each key-value head for all of its query heads."""
        return values.reshape(shape.keyValueHeads, 1, shape.headSize).expand(-1, copies, -1).reshape(-1)

    out = {}
    for norm in ("attentionNorm", "mlpNorm"):
        out[f"{norm}.weight"] = block[f"{norm}.weight"] / scale[norm]
        if opt:
            out[f"{norm}.bias"] = (block[f"{norm}.bias"] - delta[norm]) / scale[norm]
    inputs = {
        "query": "attentionNorm", "key": "attentionNorm", "value": "attentionNorm", "gate": "mlpNorm", "up": "mlpNorm",
        "output": "value", "down": "mlp",
    }
    rows = {"value": 1 / scale["value"], "up": 1 / scale["mlp"]}
    if "queryKey" in scale:
        keys = scale["queryKey"]
        if not opt:
            keys = torch.cat([keys, keys], dim=-1).reshape(-1)  # pair (i, i + d / 2) shares a scale
        rows |= {"query": 1 / over_heads(keys), "key": keys}
    for linear in shape.linears():
        site = inputs[linear]
        columns, shift = scale[site], delta.get(site)
        if linear == "output":
            columns = over_heads(columns)
            shift = None if shift is None else over_heads(shift)
        weight = block[f"{linear}.weight"]
        factor = rows.get(linear)
        out[f"{linear}.weight"] = weight * columns if factor is None else weight * columns * factor[:, None]
        if opt:
            bias = block[f"{linear}.bias"]
            bias = bias if shift is None else bias + weight @ shift
            bias = bias - delta["value"] if linear == "value" else bias
            out[f"{linear}.bias"] = bias if factor is None else bias * factor
    return out


def rotate(x, theta):
    """Rotary embedding of [B, T, H, d] in pairs (i, i + d / 2), positions from 0."""
    tokens, half = x.shape[1], x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency  # [T, d / 2]
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def normalise(x, block, name, shape):
    if shape.family == "opt":
        return functional.layer_norm(x, x.shape[-1:], block[f"{name}.weight"], block[f"{name}.bias"], shape.epsilon)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + shape.epsilon) * block[f"{name}.weight"]


def forward(block, x, shape, parameters=None, scheme=None, margins=None):
    """
    Output [B, T, D] of the block, and what is stored of it: folded tensors and (codes, scale, zero) by linear.
    Without a scheme everything stays in full precision.
    """
    folded = transformed(block, parameters, shape)
    stored = {}
    weights = {}
    for linear in shape.linears():
        weights[linear] = folded[f"{linear}.weight"]
        if scheme is not None:
            upper, lower = ((parameters or {}).get(f"{linear}.{end}") for end in ("upper", "lower"))
            weights[linear], stored[linear] = fake_quantize(weights[linear], upper, lower, scheme, margins)
    bits = scheme.activationBits if scheme is not None else 0

    def rows(t):
        return fake_quantize_rows(t, bits, margins)

    def linear(name, t):
        return functional.linear(t, weights[name], folded.get(f"{name}.bias"))

    batch, tokens, _ = x.shape
    t = rows(normalise(x, folded, "attentionNorm", shape))
    q = linear("query", t).reshape(batch, tokens, shape.heads, shape.headSize)
    k = linear("key", t).reshape(batch, tokens, shape.keyValueHeads, shape.headSize)
    v = linear("value", t).reshape(batch, tokens, shape.keyValueHeads, shape.headSize)
    if shape.family == "llama":
        q, k = rotate(q, shape.ropeTheta), rotate(k, shape.ropeTheta)
    copies = shape.heads // shape.keyValueHeads
    q, k, v = (rows(part).transpose(1, 2) for part in (q, k, v))  # [B, H | K, T, d]
    k, v = (part.repeat_interleave(copies, dim=1) for part in (k, v))
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + linear("output", rows(attended.transpose(1, 2).reshape(batch, tokens, -1)))

    t = rows(normalise(x, folded, "mlpNorm", shape))
    up = linear("up", t)
    if margins is not None and shape.family == "opt":
        margins.meet("relu", (up.detach().abs().min() / up.detach().abs().max()).item())
    t = functional.silu(linear("gate", t)) * up if shape.family == "llama" else functional.relu(up)
    return x + linear("down", rows(t)), folded, stored
