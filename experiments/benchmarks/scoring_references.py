# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""One task of the scoring benchmark in a reference library, timed.

`python scoring_references.py TASK DATA.npy` prints one line of JSON. It runs in the
environment of that library (`make references`), so it imports numpy and that library
only. The data are `[V, R, N]` int8 category ids, -1 where a rating is missing.

A slow task runs on one value, a few iterations or a few resamples and is scaled to ten
values, 20 iterations or 1,000 resamples: `scaled` says from what.
"""

import itertools
import json
import sys
import time

import numpy as np

RESAMPLES, ITERATIONS = 1000, 20


def krippendorff_alpha(data):
    """Nominal alpha of every value."""
    import krippendorff

    values = as_nan(data)
    if data.shape[2] > 200_000:
        seconds, alpha = timed(lambda: nominal(krippendorff, values[0]))
        return seconds * len(data), "one value", [alpha]
    seconds, alphas = timed(lambda: [nominal(krippendorff, x) for x in values])
    return seconds, "", alphas


def krippendorff_bootstrap(data):
    """Nominal alpha of resampled units, one value."""
    import krippendorff

    values, random = as_nan(data[0]), np.random.default_rng(0)
    count = 20 if data.shape[2] <= 200_000 else 5
    n = values.shape[1]

    def run():
        return [
            nominal(krippendorff, values[:, random.integers(0, n, n)])
            for _ in range(count)
        ]

    seconds, alphas = timed(run)
    scale = RESAMPLES / count * len(data)
    return seconds * scale, f"one value, {count} resamples", float(np.std(alphas))


def statsmodels_fleiss(data):
    """Fleiss' kappa of every value; complete ratings only."""
    from statsmodels.stats import inter_rater

    data = np.where(data < 0, 1, data)
    some = data[:1] if data.shape[2] > 200_000 else data

    def run():
        return [
            float(inter_rater.fleiss_kappa(inter_rater.aggregate_raters(x.T)[0]))
            for x in some
        ]

    seconds, kappas = timed(run)
    note = "" if len(some) == len(data) else "one value, "
    return seconds * len(data) / len(some), f"{note}no missing", kappas


def sklearn_cohen(data):
    """Cohen's kappa of every pair of raters, one value; complete ratings only."""
    from sklearn.metrics import cohen_kappa_score

    ratings = np.where(data[0] < 0, 1, data[0])
    pairs = list(itertools.combinations(range(len(ratings)), 2))
    some = pairs[:2] if data.shape[2] > 200_000 else pairs

    def run():
        return [cohen_kappa_score(ratings[a], ratings[b]) for a, b in some]

    seconds, kappas = timed(run)
    note = f"one value, {len(some)} of {len(pairs)} pairs, no missing"
    return seconds * len(data) * len(pairs) / len(some), note, float(np.mean(kappas))


def irrcac_gwet(data):
    """AC1 of one value."""
    import pandas as pd
    from irrCAC.raw import CAC

    frame = pd.DataFrame(as_nan(data[0]).T)

    def run():
        table = CAC(frame, categories=[0.0, 1.0, 2.0], digits=12)
        return table.gwet()["est"]["coefficient_value"]

    seconds, value = timed(run)
    return seconds * len(data), "one value", [float(value)]


def crowdkit_dawid_skene(data):
    """Dawid-Skene of one value, posteriors included."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    worker, task = np.nonzero(data[0] >= 0)
    frame = pd.DataFrame(
        {"task": task, "worker": worker, "label": data[0][worker, task]}
    )

    def run(iterations):
        model = DawidSkene(n_iter=iterations, tol=-1e9)
        model.fit_predict_proba(frame)
        return model

    if data.shape[2] <= 200_000:
        seconds, model = timed(lambda: run(ITERATIONS))
    else:
        # The start is not repeated by an iteration, so it is not scaled with them.
        one, _ = timed(lambda: run(1))
        three, _ = timed(lambda: run(3))
        seconds = one + (ITERATIONS - 1) * (three - one) / 2
        return seconds * len(data), "one value, 1 and 3 iterations", None
    posterior = model.probas_.sort_index()[[0, 1, 2]].to_numpy()
    return seconds * len(data), "one value", posterior[:1000].tolist()


TASKS = {
    task.__name__: task
    for task in (
        krippendorff_alpha,
        krippendorff_bootstrap,
        statsmodels_fleiss,
        sklearn_cohen,
        irrcac_gwet,
        crowdkit_dawid_skene,
    )
}


def as_nan(data):
    """Missing ratings as the libraries want them."""
    return np.where(data < 0, np.nan, data)


def nominal(library, ratings):
    """Nominal alpha of one table."""
    return float(
        library.alpha(
            reliability_data=ratings,
            level_of_measurement="nominal",
            value_domain=[0.0, 1.0, 2.0],
        )
    )


def peak_memory():
    """Bytes; of this program alone, where ru_maxrss begins with that of its parent."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    raise OSError("peak memory: no VmHWM in /proc/self/status; it is there on Linux.")


def timed(run):
    """Seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main():
    """Runs one task and prints its report."""
    task, path = sys.argv[1:]
    seconds, scaled, result = TASKS[task](np.load(path))
    print(
        json.dumps(
            {"s": seconds, "peak": peak_memory(), "scaled": scaled, "result": result}
        )
    )


if __name__ == "__main__":
    main()
