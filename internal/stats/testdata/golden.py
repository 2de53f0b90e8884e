"""Writes golden.json: what scipy says about the same samples.

Run by hand, never by a test: python golden.py > golden.json
(scipy 1.17). Every value is made here with a fixed seed.
"""
import itertools
import json

import numpy as np
from scipy import stats

rng = np.random.default_rng(20261122)
out = {"scipy": __import__("scipy").__version__, "samples": [], "cdf": [], "ties": [], "quantiles": [], "design": []}


def exact_cdf(n):
    """Exact integer counts: no rounding before the last division."""
    counts = [1]
    for i in range(1, n + 1):
        nxt = counts + [0] * i
        for w, c in enumerate(counts):
            nxt[w + i] += c
        counts = nxt
    total, acc, cdf = 2**n, 0, []
    for c in counts:
        acc += c
        cdf.append(acc / total)
    return cdf


def interval(x, level):
    n = len(x)
    walsh = sorted((x[i] + x[j]) / 2 for i in range(n) for j in range(i, n))
    if n <= 200:
        cdf = exact_cdf(n)
        p = lambda w: cdf[w]
    else:
        mean, sd = n * (n + 1) / 4, (n * (n + 1) * (2 * n + 1) / 24) ** 0.5
        p = lambda w: float(stats.norm.cdf((w + 0.5 - mean) / sd))
    k = 0
    while k < len(walsh) // 2 and 2 * p(k) <= 1 - level:
        k += 1
    hl = float(np.median(walsh))
    if k == 0:
        return {"level": level, "estimate": hl, "low": None, "high": None, "attained": 0}
    return {"level": level, "estimate": hl, "low": walsh[k - 1], "high": walsh[-k], "attained": 1 - 2 * p(k - 1)}


for n in (1, 2, 3, 5, 6, 7, 9, 10, 12, 20, 35, 50, 100, 200, 201, 280):
    x = rng.lognormal(3, 0.8, n) - 15
    method = "exact" if n <= 200 else "asymptotic"
    w = stats.wilcoxon(x, method=method, correction=n > 200)
    out["samples"].append({
        "values": x.tolist(),
        "p": float(w.pvalue),
        "intervals": [interval(x.tolist(), lv) for lv in (0.9, 0.95, 1 - 0.05 / 3, 1 - 0.05 / 12)],
        "median": float(np.median(x)),
        "std": float(np.std(x, ddof=1)) if n > 1 else 0.0,
    })

for n in (1, 4, 10, 50, 200):
    cdf = exact_cdf(n)
    for w in sorted({0, 1, len(cdf) // 7, len(cdf) // 4, len(cdf) // 2, len(cdf) - 2, len(cdf) - 1}):
        if 0 <= w < len(cdf):
            out["cdf"].append({"n": n, "w": w, "p": cdf[w]})


def worst_p(x):
    """The largest exact p over all ways to break ties and zeros, by brute force."""
    eps = 1e-6
    worst = 0.0
    offsets = list(itertools.permutations(range(1, len(x) + 1)))
    for o in offsets:
        zeros = [i for i, v in enumerate(x) if v == 0]
        for signs in itertools.product((-1, 1), repeat=len(zeros)):
            y = []
            for i, v in enumerate(x):
                s = np.sign(v) if v != 0 else signs[zeros.index(i)]
                y.append(s * (abs(v) + eps * o[i]))
            worst = max(worst, float(stats.wilcoxon(y, method="exact").pvalue))
    return worst


for x in ([1, -1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 0, 3, -3, 5], [2, 2, 2, -2, 7], [0, 0, 0], [1, 1, 1, 1, 1], [-1, -2, -2, -3, 1, -4]):
    out["ties"].append({"values": x, "p": worst_p(x)})

for n in (1, 2, 10, 99, 100, 101, 1000, 2000):
    x = np.sort(rng.exponential(100, n))
    for q in (0.5, 0.9, 0.99, 0.999):
        v = float(np.quantile(x, q, method="inverted_cdf"))
        out["quantiles"].append({"n": n, "p": q, "rank": int(np.searchsorted(x, v)) + 1})

for _ in range(4):
    n = rng.poisson(50, 40)
    x = rng.binomial(n, rng.beta(2, 30, 40))
    r = x.sum() / n.sum()
    d = float(np.sum((x - r * n) ** 2) / (r * (1 - r) * n.sum()))
    out["design"].append({"above": x.tolist(), "count": n.tolist(), "d": d})

print(json.dumps(out, indent=None, separators=(",", ":")).replace("},{", "},\n{"))
