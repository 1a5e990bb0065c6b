"""Writes expected.json: perplexity of the bundled model on the bundled slice of WikiText-2, by Hugging Face transformers.

Run from the repository root: python test/golden/perplexity/make.py
"""

import json
import math
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

WINDOW = 1024
WINDOWS = 8

text = Path("data/wikitext2-validation-slice.txt").read_bytes().decode()
ids = Tokenizer.from_file("models/wiki-7m/tokenizer.json").encode(text, add_special_tokens=False).ids
model = AutoModelForCausalLM.from_pretrained("models/wiki-7m", dtype=torch.float32)
losses = []
with torch.no_grad():
    for window in range(WINDOWS):
        tokens = torch.tensor([ids[window * WINDOW : (window + 1) * WINDOW]])
        logits = model(tokens).logits[0, :-1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]).item())
expected = {
    "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, float32",
    "window": WINDOW,
    "windows": WINDOWS,
    "tokens": len(ids),
    "losses": losses,
    "perplexity": math.exp(sum(losses) / len(losses)),
}
(Path(__file__).parent / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
