"""Writes factor.json: Cholesky factors and triangular inverses by numpy (LAPACK, f64) of small matrices whose elements are exact
in f32. Run beside this file: python factor.py"""
import json
from pathlib import Path

import numpy as np

rng = np.random.default_rng(20250101)
cases = []
for n, ridge in [(1, 1.0), (5, 0.1), (9, 0.001), (31, 0.01)]:
    x = rng.integers(-8, 9, size=(2 * n, n)) / 8
    a = x.T @ x / 64 + ridge * np.eye(n)
    a = a.astype(np.float32).astype(np.float64)
    lower = np.linalg.cholesky(a)
    rounded = lower.astype(np.float32).astype(np.float64)
    inverse = np.tril(np.linalg.inv(rounded))
    cases.append({
        "n": n,
        "matrix": [float(v) for v in a.ravel()],
        "cholesky": [float(np.float32(v)) for v in lower.ravel()],
        "inverse": [float(np.float32(v)) for v in inverse.ravel()],
    })
out = Path(__file__).with_name("factor.json")
out.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(out.stat().st_size)
