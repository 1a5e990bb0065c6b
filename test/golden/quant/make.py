"""Writes cases.safetensors: what numpy and scikit-learn say about the same small problems. Run: python make.py

Everything is f64 in the textbook form (explicit inverse, one column eliminated after the other), so that it shares neither code nor
formulas with the product.
"""

import pathlib

import numpy as np
from safetensors.numpy import save_file
from sklearn.cluster import KMeans

ROWS, COLUMNS, TOKENS, DAMPING = 32, 96, 110, 0.01
random = np.random.default_rng(20260101)
out = {}


def put(name, array, dtype=np.float32):
    out[name] = np.ascontiguousarray(np.asarray(array).astype(dtype))


# ---- a weight and inputs whose columns differ in size and depend on each other
weight = (random.standard_normal((ROWS, COLUMNS)) * np.exp(0.4 * random.standard_normal(COLUMNS)) * 0.05).astype(np.float32)
mixing = np.eye(COLUMNS) * 1.5 + 0.15 * random.standard_normal((COLUMNS, COLUMNS))
inputs = (random.standard_normal((TOKENS, COLUMNS)) @ mixing * np.exp(0.5 * random.standard_normal(COLUMNS))).astype(np.float16).astype(np.float32)
full = (inputs + 0.1 * random.standard_normal(inputs.shape) + 0.05 * np.roll(inputs, 1, axis=1)).astype(np.float16).astype(np.float32)
hessian = (inputs.astype(np.float64).T @ inputs.astype(np.float64) / TOKENS).astype(np.float32)
correction = ((full - inputs).astype(np.float64).T @ inputs.astype(np.float64) / TOKENS).astype(np.float32)
put("weight", weight)
put("inputs", inputs, np.float16)
put("full", full, np.float16)
put("hessian", hessian)
put("correction", correction)

damped = hessian.astype(np.float64) + DAMPING * np.mean(np.diag(hessian).astype(np.float64)) * np.eye(COLUMNS)
inverse = np.linalg.inv(damped)
put("factor", np.linalg.cholesky(inverse).T)
put("corrected", weight.astype(np.float64) @ (np.eye(COLUMNS) + 0.5 * correction.astype(np.float64) @ inverse))


# ---- affine grids
def grid_of(block, bits, symmetric):
    """Per row of block [O, n]: scale (a f16 value) and zero of the min-max grid."""
    most = 2**bits - 1
    if symmetric:
        scale = 2 * np.abs(block).max(1) / most
    else:
        low, high = np.minimum(block.min(1), 0), np.maximum(block.max(1), 0)
        scale = (high - low) / most
    scale = np.where(scale == 0, 1, scale).astype(np.float16).astype(np.float64)
    zero = np.full(len(block), 2.0 ** (bits - 1)) if symmetric else np.clip(np.rint(-low / scale), 0, most)
    return scale, zero


def code_of(column, scale, zero, bits):
    """Codes, and how far each value is from being rounded to another whole number, in units of the grid."""
    t = column / scale
    return np.clip(np.rint(t) + zero, 0, 2**bits - 1), np.abs(t - np.floor(t) - 0.5)


def affine(bits, group, symmetric, feedback, act_order):
    """RTN (no feedback) or GPTQ by optimal brain surgery: codes, margins [O, I] and scale, zero [O, G]."""
    w = weight.astype(np.float64).copy()
    groups = -(-COLUMNS // group)
    diagonal = np.diag(hessian)
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(COLUMNS)
    scale, zero = np.zeros((ROWS, groups)), np.zeros((ROWS, groups))
    done = np.zeros(groups, bool)
    if act_order:  # static groups: grids of the weights as they were
        for g in range(groups):
            scale[:, g], zero[:, g] = grid_of(w[:, g * group : (g + 1) * group], bits, symmetric)
        done[:] = True
    codes, margins = np.zeros(w.shape), np.zeros(w.shape)
    left = inverse.copy()
    for step, column in enumerate(order):
        g = column // group
        if not done[g]:
            scale[:, g], zero[:, g] = grid_of(w[:, g * group : (g + 1) * group], bits, symmetric)
            done[g] = True
        codes[:, column], margins[:, column] = code_of(w[:, column], scale[:, g], zero[:, g], bits)
        if feedback:
            error = w[:, column] - (codes[:, column] - zero[:, g]) * scale[:, g]
            later = order[step + 1 :]
            w[:, later] -= np.outer(error / left[column, column], left[column, later])
            left -= np.outer(left[:, column], left[column]) / left[column, column]
    return codes, margins, scale, zero


grids = [(bits, group, symmetric) for bits in (2, 3, 4) for group, symmetric in ((32, False), (32, True), (COLUMNS, False))]
for bits, group, symmetric in grids + [(3, 40, False), (4, COLUMNS, True), (8, 32, False)]:
    for method, feedback, act_order in (("rtn", False, False), ("gptq", True, False), ("gptq-act", True, True)):
        name = f"{method}.{bits}.{group}.{'symmetric' if symmetric else 'asymmetric'}"
        codes, margins, scale, zero = affine(bits, group, symmetric, feedback, act_order)
        put(f"{name}.codes", codes, np.uint8)
        put(f"{name}.ties", np.flatnonzero(margins < 1e-4), np.int32)  # values that rounding errors may push either way
        put(f"{name}.scale", scale, np.float16)
        put(f"{name}.zero", zero, np.uint8)

# ---- the column sweep of VPTQ on given codebooks, and least-squares centroids for its indices
V, CODEWORDS = 4, 16
order = np.argsort(-np.diag(hessian), kind="stable")
picked = random.choice(ROWS // V * COLUMNS, CODEWORDS, replace=False)
vectors = weight.T.reshape(COLUMNS, ROWS // V, V).reshape(-1, V)
codebook = vectors[picked].astype(np.float16).astype(np.float64)
w, left = weight.astype(np.float64).copy(), inverse.copy()
indices = np.zeros((ROWS // V, COLUMNS), int)
for step, column in enumerate(order):
    x = w[:, column].reshape(-1, V)
    chosen = np.argmin(((x[:, None] - codebook[None]) ** 2).sum(-1), axis=1)
    indices[:, column] = chosen
    error = w[:, column] - codebook[chosen].reshape(-1)
    later = order[step + 1 :]
    w[:, later] -= np.outer(error / left[column, column], left[column, later])
    left -= np.outer(left[:, column], left[column]) / left[column, column]
put("sweep.codebook", codebook)
put("sweep.indices", indices, np.int32)
put("sweep.order", order, np.int32)
# minimise sum_r e_r H e_r^T over the codewords: with H = R R^T an ordinary least-squares problem
root = np.linalg.cholesky(damped)
rows_a, rows_b = [], []
for r in range(ROWS // V):
    selection = np.eye(CODEWORDS)[indices[r]]  # [I, C]
    rows_a.append(root.T @ selection)
    rows_b.append(root.T @ weight[r * V : (r + 1) * V].astype(np.float64).T)
put("sweep.leastSquares", np.linalg.lstsq(np.concatenate(rows_a), np.concatenate(rows_b), rcond=None)[0])

# ---- weighted k-means from a given start
N, K = 700, 24
points = (random.standard_normal((N, V)) * np.array([1, 0.5, 2, 1])).astype(np.float32)
weights = np.exp(random.standard_normal(N)).astype(np.float32)
start = points[random.choice(N, K, replace=False)]
fitted = KMeans(K, init=start.astype(np.float64), n_init=1, max_iter=1000, tol=0, algorithm="lloyd").fit(
    points.astype(np.float64), sample_weight=weights.astype(np.float64)
)
put("kmeans.points", points)
put("kmeans.weights", weights)
put("kmeans.start", start)
put("kmeans.centroids", fitted.cluster_centers_)
put("kmeans.objective", [fitted.inertia_])

save_file(out, pathlib.Path(__file__).with_name("cases.safetensors"))
