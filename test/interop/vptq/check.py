"""Compares logits of a checkpoint that Bitwright wrote with those of transformers and the vptq package, on a CPU.

    bitwright quantize MODEL -o OUT --method vptq ...
    bitwright logits OUT --tokens tokens.json --json > logits.json
    python check.py OUT tokens.json logits.json

Needs (Python 3.11): torch, transformers==4.49.0, vptq==0.0.5.post1, accelerate==1.4.0, safetensors, tokenizers<0.22,
huggingface_hub<1.0. transformers 5 refuses VPTQ without a GPU. vptq must find no CUDA runtime: it then takes its torch path.
Arithmetic is float32 on both sides. Exit code 1 when the logits differ by more than 1e-4 of the largest.
"""

import base64
import json
import sys
import types

import numpy as np
import torch
import transformers

# vptq imports a class of sentence_transformers and does not use it here
stub = types.ModuleType("sentence_transformers")
stub.SentenceTransformer = types.ModuleType("sentence_transformers.SentenceTransformer")
stub.SentenceTransformer.SentenceTransformer = object
sys.modules["sentence_transformers"] = stub
sys.modules["sentence_transformers.SentenceTransformer"] = stub.SentenceTransformer

from vptq import VQuantLinear  # noqa: E402

TOLERANCE = 1e-4

folder, tokens_file, logits_file = sys.argv[1:4]
with open(tokens_file) as file:
    tokens = json.load(file)
with open(logits_file) as file:
    ours = json.load(file)
got = np.frombuffer(base64.b64decode(ours["logits"]), dtype="<f4").reshape(ours["shape"])

transformers.logging.set_verbosity_error()
model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, torch_dtype=torch.float32, output_loading_info=True
)
problems = {key: info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
quantized = sum(isinstance(module, VQuantLinear) for module in model.modules())
if problems or quantized == 0:
    sys.exit(f"the checkpoint does not load as it should: {problems}, {quantized} quantized layers")

with torch.no_grad():
    expected = model(torch.tensor(tokens)).logits.numpy()
difference = float(np.abs(got - expected).max())
largest = float(np.abs(expected).max())
print(f"{quantized} quantized layers, logits {list(expected.shape)}: largest difference {difference:.3g} of {largest:.3g}")
sys.exit(0 if difference <= TOLERANCE * largest else 1)
