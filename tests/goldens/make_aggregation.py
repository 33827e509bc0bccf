# SPDX-License-Identifier: Apache-2.0
"""Writes aggregation.npz: seeded tables of ratings and what crowd-kit makes of them.

Needs crowd-kit 1.4.2 with scikit-learn 1.6.1, numpy and pandas < 3 (its Wawa fails on
scikit-learn 1.9.1), which `make references` installs by themselves; the tests that read
the file need none of it. Run: make goldens-scoring

Keys are "table/name". What has to be known about crowd-kit to compare with it:
- Dawid-Skene and one-coin stop early by a criterion of their own; a tolerance of -1e9
  and a fixed number of iterations make them plain EM. Errors are stored here as
  [rater, true category, answer].
- Ties go to the lowest category, so that Wawa is fitted on the units without a tie.
- GLAD by default takes 25 steps of conjugate gradients to a tolerance of 1e-2; here the
  optimum is wanted.
- MACE mixes up the order of appearance with the sorted order of labels and raters: rows
  are sorted here and the first rater gives all labels. All its restarts start from the
  same seed, so that one is enough.
"""

import pathlib

import crowdkit.aggregation as crowdkit
import numpy as np
import pandas as pd

HERE = pathlib.Path(__file__).parent
TABLES = {  # raters, units, categories, share missing, seed
    "two_raters": (2, 40, 2, 0.0, 0),
    "few": (5, 60, 3, 0.1, 1),
    "many": (12, 50, 5, 0.4, 2),
    "larger": (6, 120, 3, 0.1, 3),
}
ITERATIONS = 20


def table(raters, units, categories, missing, seed):
    """Ratings by raters of unequal skill and habits, and where they are present."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(categories, units, p=rng.dirichlet(np.full(categories, 4.0)))
    ratings = np.zeros((raters, units), np.int8)
    for a, skill in enumerate(rng.uniform(0.45, 0.95, raters)):
        habit = rng.dirichlet(np.full(categories, 2.0))
        guess = rng.choice(categories, units, p=habit)
        ratings[a] = np.where(rng.random(units) < skill, truth, guess)
    where = rng.random((raters, units)) >= missing
    where[rng.integers(0, raters, units), np.arange(units)] = True
    assert len(np.unique(ratings[0][where[0]])) == categories
    return ratings, where


def frame(ratings, where):
    a, u = np.nonzero(where)
    rows = pd.DataFrame({"task": u, "worker": a, "label": ratings[a, u].astype(int)})
    return rows.sort_values(["worker", "label", "task"], ignore_index=True)


def by_unit(probs, units, categories):
    return probs.reindex(index=range(units), columns=range(categories)).to_numpy()


def confusion(errors, raters, categories):
    full = pd.MultiIndex.from_product([range(raters), range(categories)])
    rows = errors.reindex(index=full, columns=range(categories), fill_value=0.0)
    return rows.to_numpy().reshape(raters, categories, categories).swapaxes(1, 2)


def answers(ratings, where, categories):
    raters, units = ratings.shape
    rows = frame(ratings, where)
    shape = units, categories
    shares = by_unit(crowdkit.MajorityVote().fit(rows).probas_, *shape)
    out = {"ratings": ratings, "where": where, "num_categories": categories}
    out["majority_vote/shares"] = shares

    for name, cls in (
        ("dawid_skene", crowdkit.DawidSkene),
        ("one_coin", crowdkit.OneCoinDawidSkene),
    ):
        fit = cls(n_iter=ITERATIONS, tol=-1e9).fit(rows)
        out[f"{name}/probs"] = by_unit(fit.probas_, *shape)
        out[f"{name}/prevalence"] = fit.priors_.reindex(range(categories)).to_numpy()
        if name == "dawid_skene":
            out[f"{name}/confusion"] = confusion(fit.errors_, raters, categories)
        else:
            out[f"{name}/skill"] = fit.skills_.reindex(range(raters)).to_numpy()

    untied = (shares > shares.max(1, keepdims=True) - 1e-9).sum(1) == 1
    wawa = crowdkit.Wawa().fit(rows[untied[rows.task]])
    out["wawa/skill"] = wawa.skills_.reindex(range(raters)).to_numpy()
    out["wawa/shares"] = by_unit(wawa.predict_proba(rows), *shape)

    glad = crowdkit.GLAD(n_iter=60, tol=-1e9, m_step_max_iter=200, m_step_tol=1e-7).fit(
        rows
    )
    out["glad/probs"] = by_unit(glad.probas_, *shape)
    out["glad/ability"] = glad.alphas_.reindex(range(raters)).to_numpy()
    out["glad/easiness"] = glad.betas_.reindex(range(units)).to_numpy()

    for method in ("vb", "em"):
        fit = crowdkit.MACE(n_restarts=1, n_iter=50, method=method)
        fit._initialize(raters, categories)
        out["mace/start_trust"] = fit.spamming_[:, 1]
        out["mace/start_spam"] = fit.thetas_
        fit.fit(rows)
        out[f"mace/{method}/probs"] = by_unit(fit.probas_, *shape)
        out[f"mace/{method}/know_spam"] = fit.spamming_[:, ::-1]
        out[f"mace/{method}/spam"] = fit.thetas_
    return out


def main():
    arrays = {}
    for name, spec in TABLES.items():
        ratings, where = table(*spec)
        for key, x in answers(ratings, where, spec[2]).items():
            arrays[f"{name}/{key}"] = np.asarray(x)
    np.savez_compressed(HERE / "aggregation.npz", **arrays)


if __name__ == "__main__":
    main()
