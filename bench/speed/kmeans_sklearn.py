"""scikit-learn's side of kmeans.ts: python kmeans_sklearn.py FOLDER V CODEWORDS ITERATIONS, prints JSON."""
import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

folder = Path(sys.argv[1])
v, codewords, iterations = map(int, sys.argv[2:5])
x = np.fromfile(folder / "x", np.float32).reshape(-1, v)
weights = np.fromfile(folder / "weights", np.float32)
start = np.fromfile(folder / "start", np.float32).reshape(codewords, v)
model = KMeans(codewords, init=start, n_init=1, max_iter=iterations, algorithm="lloyd")
KMeans(codewords, init=start, n_init=1, max_iter=2, algorithm="lloyd").fit(x, sample_weight=weights)  # warm
begin = time.perf_counter()
model.fit(x, sample_weight=weights)
seconds = time.perf_counter() - begin
print(json.dumps({
    "seconds": seconds,
    "iterations": int(model.n_iter_),
    "objective": float(model.inertia_),
    "centroids": model.cluster_centers_.ravel().tolist(),
}))
