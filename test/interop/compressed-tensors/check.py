"""Compares logits of a compressed-tensors checkpoint that Bitwright wrote with those of transformers, on a CPU.

    bitwright export QUANTIZED -o OUT --format compressed-tensors
    bitwright logits OUT --tokens tokens.json --json > logits.json
    python check.py OUT tokens.json logits.json

Needs (Python 3.11): torch, transformers==5.23.0, compressed-tensors==0.20.0. Asymmetric packed weights load with
dequantize=True only: the package registers packed zeros in another type than it unpacks; the decoded weights are then rounded to float16. Arithmetic is float32 on both sides. Exit code 1 when the logits
differ by more than 1e-4 of the largest (2e-3 with rounded weights). With quantized activations a value may lie between two codes, and the smallest difference
then moves it by a whole step: the mean Kullback-Leibler divergence is compared instead, and may be 1e-2 with 4 bits, 1e-3 else.
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
ours_log, theirs_log = got.log_softmax(-1), expected.log_softmax(-1)
divergence = float((theirs_log.exp() * (theirs_log - ours_log)).sum(-1).mean())
print(
    f"{config['format']}, {'/'.join(str(numbers['num_bits']) for numbers in weights)} bits, {weights[0]['strategy']} "
    f"{weights[0]['group_size'] or ''}, {'' if symmetric else 'a'}symmetric, "
    f"activations of {bits or 'no'} bits, {f'{quantized} modules' if quantized else 'decoded at once'}: "
    f"logits {list(expected.shape)}, largest difference {difference:.3g} of {largest:.3g}, divergence {divergence:.3g}"
)
if bits:
    sys.exit(0 if divergence <= (1e-2 if min(bits) <= 4 else 1e-3) else 1)
sys.exit(0 if difference <= (ROUNDED_TOLERANCE if arguments else TOLERANCE) * largest else 1)
