"""Compares logits of a compressed-tensors checkpoint that Bitwright wrote with those of transformers, on a CPU.

    bitwright export QUANTIZED -o OUT --format compressed-tensors
    bitwright logits OUT --tokens tokens.json --json > logits.json
    python check.py OUT tokens.json logits.json

Needs (Python 3.11): torch, transformers==5.23.0, compressed-tensors==0.20.0. Asymmetric packed weights load with
dequantize=True only: the package registers packed zeros in another type than it unpacks; the decoded weights are then rounded to float16. Arithmetic is float32 on both sides. Exit code 1 when the logits
differ by more than 1e-4 of the largest (2e-3 with rounded weights). 
With quantized activations a value near the middle of two codes may fall to either side, and the step that it takes reaches every
later token of its row: two correct engines then differ by as much as some percent of the logits (transformers in float32 and in
float64 do). So rows should be short and many, and two things are asked: more than half of the positions agree as above, and the
divergence is less than half of what leaving the activations alone makes. A scheme that is misread agrees nowhere.
"""

import base64
import json
import sys

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

TOLERANCE = 1e-4
ROUNDED_TOLERANCE = 2e-3

folder, tokens_file, logits_file = sys.argv[1:4]
with open(tokens_file) as file:
    tokens = json.load(file)
with open(logits_file) as file:
    ours = json.load(file)
got = torch.from_numpy(np.frombuffer(base64.b64decode(ours["logits"]), dtype="<f4").reshape(ours["shape"]).copy())
with open(f"{folder}/config.json") as file:
    config = json.load(file)["quantization_config"]
groups = list(config["config_groups"].values())
weights = [group["weights"] for group in groups if group["weights"]]
symmetric = all(numbers["symmetric"] for numbers in weights)
inputs = [group["input_activations"] for group in groups if group["input_activations"]]

bits = [numbers["num_bits"] for numbers in [*inputs, config["kv_cache_scheme"]] if numbers]

transformers.logging.set_verbosity_error()
packed = any("pack" in (group.get("format") or config["format"]) for group in groups if group["weights"])
arguments = {} if symmetric or not packed else {"quantization_config": CompressedTensorsConfig(dequantize=True)}
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu", **arguments)
quantized = sum(hasattr(module, "quantization_scheme") for module in model.modules())
if quantized == 0 and not arguments:
    sys.exit("no module was loaded as a quantized one")
with torch.no_grad():
    expected = model(torch.tensor(tokens)).logits.float()
difference = float((got - expected).abs().max())
largest = float(expected.abs().max())


def divergence(a, b):
    a, b = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return float((a.exp() * (a - b)).sum(-1).mean())


print(
    f"{config['format']}, {'/'.join(str(numbers['num_bits']) for numbers in weights)} bits, {weights[0]['strategy']}"
    f"{' of ' + str(weights[0]['group_size']) if weights[0]['group_size'] else ''}, {'' if symmetric else 'a'}symmetric, "
    f"activations of {bits or 'no'} bits, {f'{quantized} modules' if quantized else 'decoded at once'}: "
    f"logits {list(expected.shape)}, largest difference {difference:.3g} of {largest:.3g}"
)
if not bits:
    sys.exit(0 if difference <= (ROUNDED_TOLERANCE if arguments else TOLERANCE) * largest else 1)
for module in model.modules():
    if hasattr(module, "quantization_scheme"):
        module.quantization_enabled = False
with torch.no_grad():
    alone = model(torch.tensor(tokens)).logits.float()
agree = float(((got - expected).abs().amax(-1) <= TOLERANCE * largest).float().mean())
effect, found = divergence(expected, alone), divergence(expected, got)
unmoved = float(((alone - expected).abs().amax(-1) <= TOLERANCE * largest).float().mean())
print(f"  {agree:.0%} of the positions agree ({unmoved:.0%} without activations); divergence {found:.2g} ({effect:.2g} without)")
sys.exit(0 if agree > 0.5 and unmoved < 0.1 and found < effect / 2 else 1)
