# SPDX-License-Identifier: Apache-2.0
"""Writes estimation.json: answers of ppi-python on random cases.

Needs ppi-python 0.2.3 (with numpy, scipy and scikit-learn); the tests that read the
file need none of them. A case holds the data, per lam (null = tuned) the estimate and
the 95 % interval of `ppi_mean_pointestimate` and `ppi_mean_ci`, and of
`ppi_mean_power` the labels needed for an effective sample size among n_max items.

Run: make goldens-scoring
"""

import importlib.metadata
import json
import pathlib

import numpy as np
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from ppi_py.ppi_power_analysis import ppi_mean_power

HERE = pathlib.Path(__file__).parent
CASES = [  # seed, n, N, kind
    (0, 30, 200, "binary"),
    (1, 60, 90, "binary"),
    (2, 25, 25, "normal"),
    (3, 40, 400, "opposed"),
    (4, 12, 300, "steep"),
]


def data(seed, n, size, kind):
    """Labels, predictions of the same items, predictions of the others."""
    rng = np.random.default_rng(seed)
    if kind == "binary":
        y = (rng.random(n + size) < 0.3).astype(float)
        f = np.where(rng.random(n + size) < 0.2, 1.0 - y, y)
    else:
        y = rng.normal(1.0, 2.0, n + size)
        slope = {"normal": 0.8, "opposed": -0.7, "steep": 0.3}[kind]
        f = slope * y + rng.normal(0.3, 0.2 if kind == "steep" else 1.0, n + size)
    y, f = np.round(y, 4), np.round(f, 4)
    return y[:n], f[:n], f[n:]


def answers(y, f, g):
    """Estimate and interval for plain, classical and tuned."""
    found = []
    for lam in (None, 1.0, 0.0, 0.4):
        mean = np.asarray(ppi_mean_pointestimate(y, f, g, lam=lam)).item()
        low, high = ppi_mean_ci(y, f, g, alpha=0.05, lam=lam)
        found.append({"lam": lam, "mean": mean, "low": low.item(), "high": high.item()})
    return found


def power(y, f):
    """Labels for an effective size among n_max items, predictions almost free."""
    found = []
    for effective, n_max in ((100, 1000), (200, 1000), (400, 2000)):
        pair = ppi_mean_power(
            y, f, cost_Y=1.0, cost_Yhat=1e-6, effective_n=effective, n_max=n_max
        )
        found.append({"effective": effective, "n_max": n_max, "n": int(pair["n"])})
    return found


def main():
    """Writes the file."""
    cases = []
    for seed, n, size, kind in CASES:
        y, f, g = data(seed, n, size, kind)
        cases.append(
            {
                "kind": kind,
                "labels": y.tolist(),
                "predictions_labelled": f.tolist(),
                "predictions_unlabelled": g.tolist(),
                "answers": answers(y, f, g),
                "power": power(y, f) if kind in ("binary", "normal") else [],
            }
        )
    golden = {"ppi-python": importlib.metadata.version("ppi-python"), "cases": cases}
    (HERE / "estimation.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
