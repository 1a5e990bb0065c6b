"""torch's side of training.ts: python training.py THREADS STEPS HIDDEN,HEADS,KEY_VALUE_HEADS,MLP,TOKENS cpu|cuda -> one line of JSON.

One OmniQuant step (forward, loss, backward) on a block and a window: w3g128 with learned clipping, and w4a4 with clipping and the
transformation. f32 on the CPU, eager under autocast to f16 on a card, with torch's own fused attention there. Median milliseconds
after three steps of warm-up.
"""
import json, pathlib, statistics, sys, time
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "test/golden/omniquant"))
import block as peer

threads, steps = int(sys.argv[1]), int(sys.argv[2])
hidden, heads, key_value_heads, mlp, TOKENS = (int(part) for part in sys.argv[3].split(","))
device = sys.argv[4]
WARM_UP = 3
torch.set_num_threads(threads)
torch.manual_seed(0)
# the faster of two ways; who gets the gradient of equal extremes, and codes at the ends, do not matter here
peer.largest = lambda x: x.amax(-1, keepdim=True)
peer.smallest = lambda x: x.amin(-1, keepdim=True)
peer.codes_of = lambda t, z, most: (peer.round_straight(t) + z).clamp(0, most)

torch.set_default_device(device)
shape = peer.Shape("llama", width=hidden, heads=heads, keyValueHeads=key_value_heads, headSize=hidden // heads, mlp=mlp)
weights = {f"{name}.weight": torch.randn(size) / size[1] ** 0.5 for name, size in shape.linears().items()}
weights |= {f"{norm}.weight": torch.ones(shape.width) for norm in ("attentionNorm", "mlpNorm")}
x = torch.randn(1, TOKENS, shape.width)
with torch.no_grad():
    target = peer.forward(weights, x, shape)[0].detach()


def now():
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median(scheme, transform):
    parameters = {}
    for name, (rows, columns) in shape.linears().items():
        for end in ("upper", "lower"):
            parameters[f"{name}.{end}"] = torch.full((rows, columns // scheme.group if scheme.group else 1), 4.0)
    if transform:
        parameters |= {name: torch.zeros(size) for name, size in shape.transform().items()}
    for parameter in parameters.values():
        parameter.requires_grad_()
    times = []
    for _ in range(WARM_UP + steps):
        start = now()
        with torch.autocast("cuda", torch.float16, enabled=device == "cuda"):
            output = peer.forward(weights, x, shape, parameters, scheme)[0]
        loss = (output.float() - target).pow(2).mean()
        torch.autograd.grad(loss, list(parameters.values()))
        times.append(1e3 * (now() - start))
    return statistics.median(times[WARM_UP:])


print(json.dumps({
    "device": torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads",
    "torch": torch.__version__,
    "w3g128": median(peer.Scheme(3, 128, 0), False),
    "w4a4": median(peer.Scheme(4, 0, 4), True),
}))
