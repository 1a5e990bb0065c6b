"""torch's side of training.ts: python training.py [THREADS, default 2] [STEPS, default 10] -> one line of JSON.

One OmniQuant step (forward, loss, backward) on a block of wiki-40m's shape and a window of 1024 tokens, f32 on the CPU: w3g128 with
learned clipping, and w4a4 with clipping and the transformation. Median milliseconds after three steps of warm-up.
"""
import json, pathlib, statistics, sys, time
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "test/golden/omniquant"))
import block as peer

threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 10
WARM_UP, TOKENS = 3, 1024
torch.set_num_threads(threads)
torch.manual_seed(0)
# the faster of two ways; who gets the gradient of equal extremes, and codes at the ends, do not matter here
peer.largest = lambda x: x.amax(-1, keepdim=True)
peer.smallest = lambda x: x.amin(-1, keepdim=True)
peer.codes_of = lambda t, z, most: (peer.round_straight(t) + z).clamp(0, most)

shape = peer.Shape("llama", width=512, heads=8, keyValueHeads=4, headSize=64, mlp=1408)
weights = {f"{name}.weight": torch.randn(size) / size[1] ** 0.5 for name, size in shape.linears().items()}
weights |= {f"{norm}.weight": torch.ones(shape.width) for norm in ("attentionNorm", "mlpNorm")}
x = torch.randn(1, TOKENS, shape.width)
target = peer.forward(weights, x, shape)[0].detach()


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
        start = time.perf_counter()
        loss = (peer.forward(weights, x, shape, parameters, scheme)[0] - target).pow(2).mean()
        torch.autograd.grad(loss, list(parameters.values()))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP:])


print(json.dumps({
    "threads": torch.get_num_threads(),
    "torch": torch.__version__,
    "w3g128": median(peer.Scheme(3, 128, 0), False),
    "w4a4": median(peer.Scheme(4, 0, 4), True),
}))
