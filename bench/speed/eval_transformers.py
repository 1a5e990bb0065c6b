"""Perplexity of a model with transformers on the CPU: python eval_transformers.py MODEL TEXT WINDOW LIMIT THREADS -> one line of JSON."""
import json, math, sys, time
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

model_dir, text, window, limit, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
ids = Tokenizer.from_file(f"{model_dir}/tokenizer.json").encode(open(text, encoding="utf-8").read(), add_special_tokens=False).ids
windows = [ids[i * window:(i + 1) * window] for i in range(min(limit, len(ids) // window))]
total = count = 0.0
with torch.no_grad():
    model(torch.tensor([windows[0]]))  # warm
    start = time.perf_counter()
    for w in windows:
        x = torch.tensor([w])
        logits = model(x).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum").item()
        count += window - 1
    seconds = time.perf_counter() - start
print(json.dumps({"perplexity": math.exp(total / count), "windows": len(windows), "seconds": seconds}))
