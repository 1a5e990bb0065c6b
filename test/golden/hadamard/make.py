"""Writes hadamard.json: rows times scipy.linalg.hadamard(n) / sqrt(n), f64, of inputs that are exact in f32.
Run beside this file: python make.py (numpy 2.4.6, scipy 1.17.1)."""
import json
from pathlib import Path

import numpy as np
from scipy.linalg import hadamard

rng = np.random.default_rng(20250203)
cases = []
for rows, n in [(2, 1), (3, 2), (3, 8), (2, 64), (1, 512)]:
    x = rng.integers(-64, 65, size=(rows, n)) / 16
    cases.append({"shape": [rows, n], "x": x.ravel().tolist(), "y": (x @ hadamard(n) / np.sqrt(n)).ravel().tolist()})
out = Path(__file__).with_name("hadamard.json")
out.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(out.stat().st_size)
