# SPDX-License-Identifier: Apache-2.0
"""Which use of a human's labels gives an interval one can believe? A simulation.

python -m experiments.review_simulation

python -m experiments.review_simulation --runs 500 --out runs/review

One value, 4,000 items, true labels -1, 0, +1 with probabilities .08, .77, .15. An LLM
labels each item in five passes. It has a wrong belief about 12 % of the items, the same
in all passes: 9.7 % of the easy ones and 25 % of the hard ones (15 % of the items). A
pass differs from the belief with probability .01 (easy) or .25 (hard). A human is right
with probability .95 and looks at 15 % of the items. Wrong answers fall on the other two
labels alike. Wanted: the share of +1 that the human would find.

Each pipeline estimates it with a 95 % interval in every run. Bias, root mean squared
error and coverage refer to the share of the source (known exactly from the model), for
the finite-population row to the share in the very items of that run. Writes
OUT/review_simulation.md and OUT/review_simulation.json.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.exits import exit_code
from fulcra_jax.scoring import estimation

PRIOR = (0.08, 0.77, 0.15)
HARD = 0.15
WRONG_BELIEF = (0.0970588235294, 0.25)  # Easy, hard: 12 % together.
SLIP = (0.01, 0.25)
HUMAN = 0.95
PASSES = 5
POSITIVE = 2  # The class id of +1.

PIPELINES = {
    "llm": "LLM only",
    "low": "LLM, its least consistent 15 % corrected by the human",
    "human": "human on a random 15 %, nothing else",
    "ppi": "PPI++, random 15 %",
    "finite": "PPI, random 15 %, finite population",
    "dsl": "DSL, pi ~ sqrt(error rate of the stratum)",
    "dsl_share": "DSL, pi ~ 1 - share",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to simulate."""

    runs: int = 20_000
    """Simulated data sets."""
    items: int = 4000
    """Items of each."""
    reviewed: float = 0.15
    """The share of the items that the human sees."""
    seed: int = 0
    """Of all randomness."""
    batch: int = 100
    """Runs computed at once."""
    out: str = "runs/review"
    """Directory of the table."""

    def __post_init__(self) -> None:
        """Refuses what cannot be simulated."""
        if self.runs < 2 or self.batch < 1:
            raise ValueError(
                f"review_simulation: runs is {self.runs} and batch {self.batch}; "
                "expected at least 2 and 1."
            )
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(
                f"review_simulation: seed is {self.seed}; expected at least 0 and less "
                "than 2^32."
            )
        if not 3 <= self.reviewed * self.items <= self.items:
            raise ValueError(
                f"review_simulation: reviewed is {self.reviewed} of {self.items} items;"
                " expected at least 3 items and at most all."
            )


def truth() -> float:
    """The share of +1 that the human would find in the source, exactly."""
    p = PRIOR[POSITIVE]
    return p * HUMAN + (1.0 - p) * (1.0 - HUMAN) / 2.0


def draw(key: jax.Array, items: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The human's labels, the LLM's majority and its share, each `[N]`."""
    keys = jax.random.split(key, 8)
    true_n = jax.random.categorical(keys[0], jnp.log(jnp.array(PRIOR)), shape=(items,))
    hard_n = jax.random.uniform(keys[1], (items,)) < HARD
    human_n = _other(keys[2], true_n, 1.0 - HUMAN)
    belief_n = _other(
        keys[3], true_n, jnp.where(hard_n, WRONG_BELIEF[1], WRONG_BELIEF[0])
    )
    slip_n = jnp.where(hard_n, SLIP[1], SLIP[0])
    passes = jax.vmap(lambda key: _other(key, belief_n, slip_n))
    counts_nk = jax.nn.one_hot(passes(jax.random.split(keys[4], PASSES)), 3).sum(0)
    # Ties broken at random: by the order of the labels they would favour -1.
    order_nk = counts_nk + 0.5 * jax.random.uniform(keys[5], counts_nk.shape)
    return human_n, order_nk.argmax(1), counts_nk.max(1) / PASSES


def _other(key: jax.Array, label: jax.Array, probability: Any) -> jax.Array:
    """The label, or with some probability one of the two others."""
    change, step = jax.random.split(key)
    off = jax.random.uniform(change, label.shape) < probability
    return jnp.where(
        off, (label + jax.random.randint(step, label.shape, 1, 3)) % 3, label
    )


def stratum(share_n: jax.Array) -> jax.Array:
    """0 for a share up to 3/5, 1 for 4/5, 2 for unanimous passes."""
    return jnp.clip(jnp.round(share_n * PASSES).astype(int) - 3, 0, 2)


def error_rates(seed: int) -> jax.Array:
    """How often the LLM differs from the human per stratum, from a pilot elsewhere."""
    human_n, llm_n, share_n = draw(jax.random.key(seed + 10_000), 100_000)
    wrong_n = (human_n != llm_n).astype(jnp.float32)
    group_n = stratum(share_n)
    total, count = (
        jax.ops.segment_sum(x, group_n, 3) for x in (wrong_n, jnp.ones_like(wrong_n))
    )
    return total / count


def one_run(
    key: jax.Array, rates: jax.Array, items: int, reviewed: int
) -> dict[str, dict[str, jax.Array]]:
    """Every pipeline on one data set: estimate, interval and what it was to hit."""
    keys = jax.random.split(key, 5)
    human_n, llm_n, share_n = draw(keys[0], items)
    y_n = (human_n == POSITIVE).astype(jnp.float32)
    f_n = (llm_n == POSITIVE).astype(jnp.float32)
    random_n = _lowest(jax.random.uniform(keys[1], (items,)), reviewed)
    doubt_n = share_n + 0.01 * jax.random.uniform(keys[2], (items,))
    corrected_n = jnp.where(_lowest(doubt_n, reviewed), y_n, f_n)
    nobody = jnp.zeros((1,)), jnp.zeros((1,), bool)
    classical = lambda x_n, where: estimation.ppi_mean(
        x_n, x_n, nobody[0], lam=0.0, where=where, where_unlabelled=nobody[1]
    )
    ppi = functools.partial(
        estimation.ppi_mean, y_n, f_n, f_n, where=random_n, where_unlabelled=~random_n
    )
    strata_n = jnp.sqrt(rates)[stratum(share_n)]
    estimates = {
        "llm": classical(f_n, None),
        "low": classical(corrected_n, None),
        "human": classical(y_n, random_n),
        "ppi": ppi(),
        "finite": ppi(population="finite"),
        "dsl": _dsl(keys[3], y_n, f_n, strata_n, reviewed),
        # Unanimous items at .05: with probability 0 nothing could be said of them.
        "dsl_share": _dsl(keys[4], y_n, f_n, 1.05 - share_n, reviewed),
    }
    target = {name: jnp.asarray(truth()) for name in estimates}
    target["finite"] = y_n.mean()
    return {
        name: {
            "error": e.mean - target[name],
            "covered": (e.low <= target[name]) & (target[name] <= e.high),
            "width": e.high - e.low,
            "standard_error": e.standard_error,
        }
        for name, e in estimates.items()
    }


def _lowest(x_n: jax.Array, number: int) -> jax.Array:
    """True for the `number` smallest."""
    return x_n <= jnp.sort(x_n)[number - 1]


def _dsl(
    key: jax.Array, y_n: jax.Array, f_n: jax.Array, size_n: jax.Array, reviewed: int
) -> estimation.Estimate:
    pi_n = jnp.minimum(reviewed * size_n / size_n.sum(), 1.0)
    drawn_n = jax.random.uniform(key, pi_n.shape) < pi_n
    return estimation.dsl_mean(y_n, f_n, pi_n, drawn_n)


def simulate(arguments: Arguments) -> dict[str, Any]:
    """Runs all and sums up."""
    run = functools.partial(
        one_run,
        rates=error_rates(arguments.seed),
        items=arguments.items,
        reviewed=round(arguments.reviewed * arguments.items),
    )
    batch = jax.jit(jax.vmap(run))
    # Keys for whole batches; the surplus of the last one is dropped.
    number = -(-arguments.runs // arguments.batch)
    keys = jax.random.split(jax.random.key(arguments.seed), number * arguments.batch)
    parts, begun, printed = [], time.monotonic(), 0.0
    for i, some in enumerate(keys.reshape(number, arguments.batch), 1):
        parts.append(jax.device_get(batch(some)))
        seconds = time.monotonic() - begun
        if seconds - printed >= 10.0 or i == number:
            printed, left = seconds, seconds / i * (number - i)
            done = min(i * arguments.batch, arguments.runs)
            print(f"run {done:,}/{arguments.runs:,}  ETA {left:.0f} s", flush=True)
    results = jax.tree.map(lambda *x: np.concatenate(x)[: arguments.runs], *parts)
    report = {
        "arguments": dataclasses.asdict(arguments),
        "truth": truth(),
        "pipelines": {name: summary(results[name]) for name in PIPELINES},
    }
    text = markdown(report)
    print(text)
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "review_simulation.md").write_text(text)
    (out / "review_simulation.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {out}/: review_simulation.md, review_simulation.json")
    return report


def summary(result: dict[str, np.ndarray]) -> dict[str, float]:
    """Bias, error and coverage of a pipeline, with their Monte Carlo errors."""
    error, covered = result["error"].astype(float), result["covered"]
    runs, square = len(error), error**2
    coverage, rmse = covered.mean(), float(np.sqrt(square.mean()))
    return {
        "bias": error.mean(),
        "bias_se": error.std(ddof=1) / runs**0.5,
        "rmse": rmse,
        "rmse_se": square.std(ddof=1) / runs**0.5 / (2.0 * max(rmse, 1e-12)),
        "coverage": coverage,
        "coverage_se": (coverage * (1.0 - coverage) / runs) ** 0.5,
        "width": float(result["width"].mean()),
        "claimed_over_actual": float(result["standard_error"].mean()) / error.std(),
    }


def markdown(report: dict[str, Any]) -> str:
    """The table."""
    arguments = report["arguments"]
    lines = [
        "# Estimating the share of +1 from an LLM and a human",
        "",
        f"{arguments['runs']:,} runs of {arguments['items']} items, "
        f"{arguments['reviewed']:.0%} reviewed, seed {arguments['seed']}; the share of "
        f"+1 that the human would find is {report['truth']:.5f}. In brackets the Monte "
        "Carlo standard error. The last "
        "column is the mean claimed standard error over the actual spread.",
        "",
        "| pipeline | bias | RMSE | coverage of 95 % | width | claimed / actual |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in PIPELINES.items():
        x = report["pipelines"][name]
        lines.append(
            f"| {title} | {x['bias']:+.4f} ({x['bias_se']:.4f}) "
            f"| {x['rmse']:.4f} ({x['rmse_se']:.4f}) "
            f"| {x['coverage']:.3f} ({x['coverage_se']:.3f}) "
            f"| {x['width']:.4f} | {x['claimed_over_actual']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.review_simulation",
        description=__doc__,
    )
    return exit_code(lambda: simulate(arguments))


if __name__ == "__main__":
    sys.exit(main())
