# SPDX-License-Identifier: Apache-2.0
"""The figures of an alignment as tables and sentences, for both halves.

`figures` holds "start" and "arms", each arm with the means of both times and the change
in the eyes of "evaluator" and, where there was one, of "second"; see `effects`.
"""

import math
from collections.abc import Mapping
from typing import Any

from experiments.align import measure
from fulcra_jax import values
from fulcra_jax.inference import ScoredAnswers
from fulcra_jax.report.tables import Table, number


def arms_table(figures: Mapping[str, Any]) -> Table:
    """One row for the start and each arm: what moved, and at what price."""
    start, seconds = figures["start"], _seconds(figures)
    header = [
        "arm",
        "toward the target",
        *("... second evaluator" for _ in seconds),
        "reward",
        "no connection",
        "against",
        "KL",
        "tokens",
        "distinct-2",
    ]
    kept = ("reward", "no connection, targeted", "against, targeted")
    body = [
        [
            "start",
            *(number(start[who]["toward"].mean) for who in ("evaluator", *seconds)),
            *(number(start["evaluator"][name].mean) for name in kept),
            "0",
            f"{start['text']['tokens']:.0f}",
            number(start["text"]["distinct_2"]),
        ]
    ]
    for name, entry in figures["arms"].items():
        change, text = entry["change"], entry["text"]
        body.append(
            [
                name.replace("-", " "),
                *(signed(change[who]["toward"]) for who in ("evaluator", *seconds)),
                *(signed(change["evaluator"][name]) for name in kept),
                f"{text['kl']:.2f}",
                f"{text['tokens']:.0f}",
                times(text["distinct_2"], start["text"]["distinct_2"]),
            ]
        )
    title = (
        "Held-out prompts; the arms' figures are changes from the start [95 % interval "
        "over prompts]"
    )
    return title, header, body


def specificity_table(figures: Mapping[str, Any]) -> Table:
    """Change under the target minus change under the control."""
    seconds = _seconds(figures)
    body = [
        [
            seed.replace("seed", "seed "),
            *(signed(x[who]) for who in ("evaluator", *seconds)),
        ]
        for seed, x in figures["specificity"].items()
    ]
    title = "Toward the target: change under the target - change under the control"
    if not figures["control_is_disjoint"]:
        title += " (the control shares values with the target: no test)"
    more = ["second evaluator" for _ in seconds]
    return title, ["", "evaluator", *more], body


LEGEND = """How to read it. Scores lie in [-1, 1]; brackets hold a 95 % interval by
resampling prompts with all their answers: it knows nothing of other seeds.

- toward the target: sum t v / sum |t|; 1 for an answer that shows all that it asks for.
- reward: the default reward for the target, at most 0, in the scale where the largest
  entry of the target is 1; also for arms that were trained on another.
- no connection, against: shares of the targeted values with |v| <= .3, and with v
  beyond .3 on the wrong side; a graded target's entries count above .3 of its largest.
- KL: to the start, nats per answer, summed over its tokens, exact for each token.
- distinct-n: different n-grams of words over all; falls with the length of the texts.
- second evaluator: another one, which gave no reward.
- released: the same target under the released reward, whose best answer is silence.
"""


def short_table(figures: Mapping[str, Any]) -> Table:
    """The main columns without intervals, for a terminal of 80 characters."""
    seconds = _seconds(figures)
    header = ["arm", "toward", *("second" for _ in seconds), "none", "KL", "dist-2"]
    start = figures["start"]
    rows = {"start": start, **figures["arms"]}
    body = [
        [
            name.replace("-", " "),
            *(number(entry[who]["toward"].mean) for who in ("evaluator", *seconds)),
            number(entry["evaluator"]["no connection, targeted"].mean),
            f"{entry['text']['kl']:.1f}",
            times(entry["text"]["distinct_2"], start["text"]["distinct_2"]),
        ]
        for name, entry in rows.items()
    ]
    return "Held-out prompts: toward the target, no connection, KL", header, body


def changes_table(figures: Mapping[str, Any]) -> Table:
    """The change of every value."""
    header = ["arm", *values.ABBREVIATIONS]
    start = figures["start"]["evaluator"]
    body = [["start", *(number(start[name].mean) for name in values.ABBREVIATIONS)]]
    for name, entry in figures["arms"].items():
        change = entry["change"]["evaluator"]
        body.append(
            [name.replace("-", " "), *(signed(change[k]) for k in values.ABBREVIATIONS)]
        )
    body.append(["target", *(number(float(t)) for t in figures["target"])])
    return "Mean score of each value, and its change", header, body


def distances_table(figures: Mapping[str, Any]) -> Table:
    """All distances to the target, before and after."""
    header = ["arm", *measure.DISTANCES]
    body = [["start", *_distances(figures["start"]["evaluator"])]]
    for name, entry in figures["arms"].items():
        body.append([name.replace("-", " "), *_distances(entry["evaluator"])])
    title = (
        "Mean distance to the target as it is, lower is nearer; the released one is 0 "
        "for silence. The reward brings a graded target to another scale first"
    )
    return title, header, body


def second_table(figures: Mapping[str, Any]) -> Table:
    """What the second evaluator saw, and what the texts look like."""
    seconds = _seconds(figures)
    header = [
        "arm",
        *(
            name
            for _ in seconds
            for name in ("reward, second", "no connection, second")
        ),
        "distinct-1",
        "distinct-2",
        "distinct-3",
        "alike",
        "empty",
    ]
    rows = {"start": figures["start"], **figures["arms"]}
    body = [
        [
            name.replace("-", " "),
            *(
                number(entry[who][quantity].mean)
                for who in seconds
                for quantity in ("reward", "no connection, targeted")
            ),
            *(number(entry["text"][f"distinct_{n}"]) for n in (1, 2, 3)),
            number(entry["text"]["alike"]),
            number(entry["text"]["empty"]),
        ]
        for name, entry in rows.items()
    ]
    title = (
        f"Texts{', and the second evaluator' if seconds else ''} (alike: Jaccard of "
        "answers to one prompt by pairs of words)"
    )
    return title, header, body


def best_of_n_table(figures: Mapping[str, Any]) -> Table:
    """Each aligned model beside the best of n answers of the start."""
    seconds = _seconds(figures)
    more = ["... second evaluator" for _ in seconds]
    header = ["", "n", "KL", "reward", "toward", *more]
    body = []
    for name, entry in figures["arms"].items():
        if "best_of_n" not in entry:
            continue
        best = entry["best_of_n"]
        sides = (
            (name.replace("-", " "), "-", f"{best['kl']:.2f}", entry),
            (
                "best of n, equal KL" if best["equal_kl"] else "best of n, largest n",
                str(best["n"]),
                f"<= {best['kl_bound']:.2f}",
                best,
            ),
        )
        for who, n, kl, x in sides:
            body.append(
                [
                    who,
                    n,
                    kl,
                    interval(x["evaluator"]["reward"]),
                    *(interval(x[who]["toward"]) for who in ("evaluator", *seconds)),
                ]
            )
    title = (
        "The best of n answers of the start, n where log n - (n - 1)/n, which is an "
        "upper bound, reaches the KL"
    )
    return title, header, body


def verdicts(figures: Mapping[str, Any]) -> list[str]:
    """What the figures say, each with its numbers."""
    found = []
    for seed, beyond in figures["specificity"].items():
        moved = figures["arms"][f"target-{seed}"]["change"]
        found.append(
            beyond_control(
                seed.replace("seed", "seed "),
                beyond,
                {who: x["toward"] for who, x in moved.items()},
                disjoint=figures["control_is_disjoint"],
            )
        )
    for name, entry in figures["arms"].items():
        found += [f"ALARM, {name.replace('-', ' ')}: {a}." for a in entry["alarms"]]
    return found


def beyond_control(
    name: str,
    beyond: Mapping[str, measure.Mean],
    moved: Mapping[str, measure.Mean],
    *,
    disjoint: bool,
) -> str:
    """Whether a model moved toward its target, and more than its control did.

    Args:
      name: of the seed, for the sentence.
      beyond: change under the target minus change under the control, by who scored.
      moved: change under the target.
      disjoint: whether the control asks for none of the target's values; else there is
        no test.
    """
    figures = f"{signed(moved['evaluator'])}, control subtracted "
    figures += signed(beyond["evaluator"])
    if not disjoint:
        return (
            f"{name}: the control shares values with the target, so that the figures "
            f"are a report and no test: {figures}."
        )
    sees = {who: above_zero(moved[who]) and above_zero(beyond[who]) for who in beyond}
    if not sees["evaluator"]:
        return (
            f"{name}: the model did not clearly move toward the target beyond the "
            f"control: {figures}."
        )
    said = f"{name}: the model moved toward the target, beyond the control: {figures}"
    if "second" not in beyond:
        return said + "."
    second = f"{signed(moved['second'])}, control subtracted "
    second += signed(beyond["second"])
    same = "sees the same" if sees["second"] else "does not clearly see it"
    return f"{said}; the second evaluator {same}: {second}."


def examples(sets: Mapping[str, ScoredAnswers], n: int = 3) -> str:
    """The first answer to the first n prompts of several sets of answers."""
    first = next(iter(sets.values()))
    step = len(first.prompts) // len(set(first.prompts))
    lines = ["## Answers", ""]
    for i in range(0, min(n * step, len(first.prompts)), step):
        lines.append(f"**{first.prompts[i]}**\n")
        lines += [f"- {name}: {x.responses[i]}" for name, x in sets.items()]
        lines.append("")
    return "\n".join(lines)


def signed(x: measure.Mean) -> str:
    """A change with its sign and interval.

    >>> signed(measure.Mean(0.1234, 0.1, 0.15))
    '+.123 [+.10, +.15]'
    """
    return f"{_plus(x.mean, 3)} [{_plus(x.low, 2)}, {_plus(x.high, 2)}]"


def times(x: float, start: float) -> str:
    """A figure in units of that of the start.

    >>> times(0.4, 0.5), times(float("nan"), 0.5)
    ('0.80 x', '-')
    """
    return f"{x / start:.2f} x" if math.isfinite(x) and start else "-"


def plus(x: measure.Mean) -> str:
    """A change with its sign alone."""
    return _plus(x.mean, 3)


def above_zero(x: measure.Mean) -> bool:
    """Whether the interval, as it is printed, lies above 0.

    >>> above_zero(measure.Mean(0.001, 0.0005, 0.002))
    False
    """
    return round(x.low, 2) > 0.0


def interval(x: measure.Mean) -> str:
    """A figure with its interval."""
    return number(x.mean, [x.low, x.high])


def _plus(x: float, digits: int) -> str:
    if not math.isfinite(x):
        return "-"
    text = f"{abs(x):.{digits}f}"
    sign = "-" if x < 0 and float(text) else "+"
    return sign + (text[1:] if text.startswith("0") else text)


def _distances(means: Mapping[str, measure.Mean]) -> list[str]:
    return [number(means[name].mean) for name in measure.DISTANCES]


def _seconds(figures: Mapping[str, Any]) -> list[str]:
    """["second"] where there was a second evaluator."""
    return ["second"] if "second" in figures["start"] else []
