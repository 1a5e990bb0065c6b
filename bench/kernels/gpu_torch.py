"""torch's side of gpu.ts: reads {"operation", "shape", "precision"} a line, answers {"milliseconds"} or {"error"} a line.

Eager torch on the card, by events, each call with caches that hold none of its operands; median. Gradients are timed alone: the
forward pass is done before. `python gpu_torch.py cpu` runs the same functions on the processor, to try them.
"""
import json, statistics, sys, time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit()

device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
if device == "cuda" and not torch.cuda.is_available():
    print(json.dumps({"error": "torch sees no card"}), flush=True)
    sys.exit()
torch.set_default_device(device)
torch.manual_seed(0)
ROUNDS, ENOUGH = 9, 0.15
TYPES = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16}


def backward(output, inputs, grad=None):
    grad = torch.randn_like(output) if grad is None else grad
    return lambda: torch.autograd.grad(output, inputs, grad, retain_graph=True)


def leaves(*sizes, dtype=torch.float32, spread=1):
    return [(spread * torch.randn(size, dtype=dtype)).requires_grad_() for size in sizes]


def matmul(precision, m, k, n):
    x, w = torch.randn(m, k).to(TYPES[precision]), torch.randn(n, k).to(TYPES[precision])
    return lambda: x @ w.T


def cholesky(_, n):
    x = torch.randn(n, n, dtype=torch.float64)
    a = x @ x.T / n + 0.5 * torch.eye(n, dtype=torch.float64)
    return lambda: torch.linalg.cholesky(a)


def triangularInverse(_, n):
    lower = torch.tril(torch.randn(n, n, dtype=torch.float64) / n) + torch.eye(n, dtype=torch.float64)
    return lambda: torch.linalg.solve_triangular(lower, torch.eye(n, dtype=torch.float64), upper=False)


def transpose(_, rows, columns):
    a = torch.randn(rows, columns)
    return lambda: a.T.contiguous()


def nearestCodeword(_, count, length, codewords):
    """By f32 scores, ties and last bits as they fall, some vectors at a time: torch holds all scores."""
    x, c = torch.randn(count, length), torch.randn(codewords, length)

    def run():
        starts = -0.5 * c.square().sum(1)
        return torch.cat([torch.addmm(starts, part, c.T).argmax(1) for part in x.split(8192)])

    return run


def segmentSum(_, count, length, codewords):
    """f32 sums by atomic additions."""
    x, weights = torch.randn(count, length), torch.rand(count)
    indices = (codewords * torch.rand(count).pow(1.5)).long()

    def run():
        sums = torch.zeros(codewords, length).index_add_(0, indices, x * weights[:, None])
        return sums, torch.zeros(codewords).index_add_(0, indices, weights)

    return run


def attended(precision, tokens, heads, key_heads, size):
    q, k, v = leaves(*((1, count, tokens, size) for count in (heads, key_heads, key_heads)), dtype=TYPES[precision])
    if key_heads < heads:
        repeated = [x.repeat_interleave(heads // key_heads, 1) for x in (k, v)]
    else:
        repeated = [k, v]
    return (q, k, v), lambda: F.scaled_dot_product_attention(q, *repeated, is_causal=True)


def attention(precision, *shape):
    _, forward = attended(precision, *shape)

    def run():
        with torch.no_grad():
            return forward()

    return run


def attentionGrad(precision, *shape):
    inputs, forward = attended(precision, *shape)
    return backward(forward(), inputs)


def root(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-5)


def rmsNorm(_, rows, width):
    x, weight = torch.randn(rows, width), torch.randn(width)
    return lambda: root(x, weight)


def rmsNormGrad(_, rows, width):
    x, weight = leaves((rows, width), (width,))
    return backward(root(x, weight), (x, weight))


def siluMultiply(_, rows, width):
    gate, up = torch.randn(rows, width), torch.randn(rows, width)
    return lambda: F.silu(gate) * up


def siluMultiplyGrad(_, rows, width):
    gate, up = leaves((rows, width), (rows, width))
    return backward(F.silu(gate) * up, (gate, up))


def add(_, rows, width):
    a, b = torch.randn(rows, width), torch.randn(rows, width)
    return lambda: a + b


def cast(_, rows, width):
    x = torch.randn(rows, width)
    return lambda: x.half()


def dot(_, count):
    """f32 sums; waits for the number."""
    a, b = torch.randn(count), torch.randn(count)
    return lambda: torch.dot(a, b).item()


def rounded(x):
    return x + (x.round() - x).detach()


def clipped(weights, rows, columns, upper, lower, bits, group):
    levels = 2**bits - 1
    w = (weights * columns * rows[:, None]).view(weights.shape[0], -1, group)
    high = torch.sigmoid(upper)[..., None] * w.amax(-1, keepdim=True).clamp(min=0)
    low = torch.sigmoid(lower)[..., None] * w.amin(-1, keepdim=True).clamp(max=0)
    step = ((high - low) / levels).clamp(min=1e-8)
    zero = (-low / step).round().detach()
    codes = (rounded(w / step) + zero).clamp(0, levels)
    return ((codes - zero) * step).view(weights.shape)


def clippedInputs(rows, columns, bits, group):
    weights = 0.02 * torch.randn(rows, columns)
    factors = [torch.randn(size).mul(0.1).exp().requires_grad_() for size in (rows, columns)]
    logits = [torch.full((rows, columns // group), 4.0).requires_grad_() for _ in range(2)]
    return weights, *factors, *logits


def clippedFakeQuantize(_, *shape):
    inputs = clippedInputs(*shape)

    def run():
        with torch.no_grad():
            return clipped(*inputs, *shape[2:])

    return run


def clippedFakeQuantizeGrad(_, *shape):
    inputs = clippedInputs(*shape)
    return backward(clipped(*inputs, *shape[2:]), inputs[1:])


def fakeRows(x, bits):
    levels = 2**bits - 1
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / levels).clamp(min=1e-8)
    zero = (-low / step).round().clamp(0, levels).detach()
    return ((rounded(x / step) + zero).clamp(0, levels) - zero) * step


def fakeQuantizeRows(_, rows, width, bits):
    x = torch.randn(rows, width)
    return lambda: fakeRows(x, bits)


def fakeQuantizeRowsGrad(_, rows, width, bits):
    (x,) = leaves((rows, width))
    return backward(fakeRows(x, bits), (x,))


def adamwStep(_, *shape):
    (parameter,) = leaves(shape)
    parameter.grad = torch.randn(shape)
    optimizer = torch.optim.AdamW([parameter], fused=device == "cuda")
    return optimizer.step


OPERATIONS = {
    **{f.__name__: f for f in (matmul, cholesky, triangularInverse, transpose, nearestCodeword, segmentSum)},
    **{f.__name__: f for f in (attention, attentionGrad, rmsNorm, rmsNormGrad, siluMultiply, siluMultiplyGrad, add)},
    **{f.__name__: f for f in (cast, dot, clippedFakeQuantize, clippedFakeQuantizeGrad, fakeQuantizeRows)},
    **{f.__name__: f for f in (fakeQuantizeRowsGrad, adamwStep)},
}


def milliseconds(run):
    """Once on the host's clock where there is no card."""
    run()
    if device != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times, start = [], time.perf_counter()
    while len(times) < ROUNDS and (not times or time.perf_counter() - start < ENOUGH):
        FLUSHED.sum()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


FLUSHED = torch.zeros(2**25) if device == "cuda" else None
name = torch.cuda.get_device_name() if device == "cuda" else device
print(json.dumps({"torch": torch.__version__, "device": name}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        precision = request.get("precision", "f32")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        answer = {"milliseconds": milliseconds(OPERATIONS[request["operation"]](precision, *request["shape"]))}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    print(json.dumps(answer), flush=True)
    if device == "cuda":
        torch.cuda.empty_cache()
