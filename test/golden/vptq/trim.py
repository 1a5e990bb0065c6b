"""Trims checkpoints that the official VPTQ code wrote to what the tests need.

    python trim.py FOLDER

FOLDER holds `v4k256-perm-norm` and `v8k256R256-perm-norm`: wiki-7m quantized by microsoft/VPTQ (branch algorithm), each with
config.json, model.safetensors and expected_logits.safetensors (transformers 4.49.0 and vptq 0.0.5.post1 on a CPU, float32
arithmetic). Embedding and norms are left out where they equal models/wiki-7m's, byte for byte; of the logits the first 256
of the vocabulary are kept, for all 64 positions.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
MODEL = HERE.parents[2] / "models" / "wiki-7m" / "model.safetensors"

source = Path(sys.argv[1])
base = load_file(MODEL)
for name in ["v4k256-perm-norm", "v8k256R256-perm-norm"]:
    target = HERE / name
    target.mkdir(exist_ok=True)
    tensors = load_file(source / name / "model.safetensors")
    kept = {}
    for key, value in tensors.items():
        same = key in base and base[key].dtype == value.dtype and base[key].tobytes() == value.tobytes()
        if not same:
            assert "proj." in key, f"{key} is no quantized tensor and differs from the model's"
            kept[key] = value
    assert len(tensors) - len(kept) == 14, "expected the embedding and 13 norms"
    save_file(kept, target / "quantized.safetensors", metadata={"format": "pt"})
    shutil.copyfile(source / name / "config.json", target / "config.json")
    expected = load_file(source / name / "expected_logits.safetensors")
    save_file(
        {
            "input_ids": expected["input_ids"].astype(np.int32),
            "logits": np.ascontiguousarray(expected["logits"][:, :256]),
        },
        target / "logits.safetensors",
    )
    print(name, sum(value.nbytes for value in kept.values()), "bytes of quantized tensors")
