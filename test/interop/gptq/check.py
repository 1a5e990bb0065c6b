"""Compares logits of a GPTQ checkpoint that Bitwright wrote with those of transformers and gptqmodel, on a CPU.

    bitwright export QUANTIZED -o OUT --format gptq_v2
    bitwright logits OUT --tokens tokens.json --json > logits.json
    python check.py OUT tokens.json logits.json

Needs (Python 3.11): torch, transformers==5.23.0, optimum==2.3.0, gptqmodel==7.7.0. On few cores set GPTQMODEL_CPU_WORKERS=3.
Checkpoints with overrides by name (`dynamic`) are for gptqmodel itself: optimum has one setting for all linears.
Arithmetic is float32 on both sides, but gptqmodel rounds the decoded weights to float16. Exit code 1 when the logits differ by
more than 2e-3 of the largest.
"""

import base64
import json
import sys

import numpy as np
import torch
import transformers
from gptqmodel.nn_modules.qlinear import BaseQuantLinear
from transformers import AutoModelForCausalLM, GPTQConfig

TOLERANCE = 2e-3

folder, tokens_file, logits_file = sys.argv[1:4]
with open(tokens_file) as file:
    tokens = json.load(file)
with open(logits_file) as file:
    ours = json.load(file)
got = np.frombuffer(base64.b64decode(ours["logits"]), dtype="<f4").reshape(ours["shape"])
with open(f"{folder}/config.json") as file:
    config = json.load(file)["quantization_config"]

transformers.logging.set_verbosity_error()
model = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, device_map="cpu", quantization_config=GPTQConfig(bits=config["bits"], backend="gptq_torch")
)
quantized = sum(isinstance(module, BaseQuantLinear) for module in model.modules())
if quantized == 0:
    sys.exit("no linear was loaded as a quantized one")
with torch.no_grad():
    expected = model(torch.tensor(tokens)).logits.float().numpy()
difference = float(np.abs(got - expected).max())
largest = float(np.abs(expected).max())
print(
    f"{config['checkpoint_format']}, {config['bits']} bits, groups of {config['group_size']}, "
    f"{'' if config['sym'] else 'a'}symmetric, {quantized} linears: logits {list(expected.shape)}, "
    f"largest difference {difference:.3g} of {largest:.3g}"
)
sys.exit(0 if difference <= TOLERANCE * largest else 1)
