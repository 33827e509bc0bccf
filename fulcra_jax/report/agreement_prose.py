# SPDX-License-Identifier: Apache-2.0
"""What the figures of an agreement report say, in sentences."""

from collections.abc import Sequence

from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_cells import cell
from fulcra_jax.report.agreement_groups import ACCEPTABLE, FEW, Group
from fulcra_jax.report.tables import number

HOW_TO_READ = """\
Most labels are 0, so raw agreement is high whatever the annotators are worth; alpha and
the kappas take off what chance gives. AC1 does so more mildly for rare labels: where it
lies far above alpha, the value is rare and little is known of it. Self-consistency
finds where a model wavers, not where it errs. Correcting only the texts of low
consistency repairs labels, but an estimate made from the result (a share of +1, an
accuracy) is not to be trusted: in the simulation of
`python -m experiments.review_simulation` its 95 % interval covers the truth far less
often than 95 % of the time. Measure on a random audit sample whose sampling
probabilities are recorded, and keep the queue of texts to correct apart from it.
"""

_CHANGE = 0.01  # of alpha, below which an annotator is not named


def summary(report: Report, rejects: Sequence[tuple[str, int]] = ()) -> list[str]:
    """The report in a few sentences, the most important first."""
    kinds = [one.kind for one in report.annotators]
    lines = [
        f"{_plural(len(kinds), 'annotator')} ({kinds.count('human')} human, "
        f"{kinds.count('llm')} LLM), {_plural(report.items, 'item')}, "
        f"{_plural(len(report.values), 'value')}: {report.judgements} judgements, "
        f"{report.nulls} without an answer; "
        f"{_plural(sum(count for _, count in rejects), 'line')} set aside."
    ]
    if report.pooled is None:
        lines.append(
            "**Only one annotator: nobody to agree with, self-consistency only.**"
        )
    else:
        lines += _agreement(report, report.pooled)
        lines += _people(report)
    for one in report.consistency:
        if not one.jaccard.reason:
            threshold, count = one.below[-1]
            lines.append(
                f"The passes of {one.name} agree at a signed Jaccard of "
                f"{cell(one.jaccard)} (by chance {cell(one.jaccard_by_chance)}); "
                f"{count} of {one.items} texts are below {threshold:g}."
            )
    if report.disputed_items:
        lines.append(
            f"{_plural(report.disputed_items, 'item')} with a disagreement; the worst "
            f"is {report.disputed[0].item}."
            if report.disputed
            else f"{_plural(report.disputed_items, 'item')} with a disagreement."
        )
    return lines


def _agreement(report: Report, group: Group) -> list[str]:
    if group.alpha.reason:
        return [f"**Alpha is undefined: {group.alpha.reason}.**"]
    lines = [
        f"**Alpha is {cell(group.alpha)} over all cells. Raw agreement is "
        f"{cell(group.observed)}, but chance alone would give {cell(group.chance)}; "
        f"an alpha of .8 would need {number(group.needed(0.8))}.**"
    ]
    few = [g.name for g in report.per_value if g.few]
    if few:
        lines.append(
            f"**Nothing can be said of {', '.join(few)}: fewer than {FEW} labels are "
            "not 0.**"
        )
    known = [g for g in report.per_value if not g.few and not g.alpha.reason]
    if len(known) > 1:
        worst = min(known, key=lambda g: g.alpha.value)
        lines.append(
            f"The weakest value is {worst.name}: alpha {cell(worst.alpha)}{_why(worst)}"
        )
    return lines


def _why(group: Group) -> str:
    if group.alpha.value >= ACCEPTABLE or group.mention.reason or group.polarity.reason:
        return "."
    apart = group.polarity.value - group.mention.value
    what = "whether it is there at all and on its sign"
    if abs(apart) > 0.1:
        what = "whether it is there at all" if apart > 0.0 else "its sign"
    return (
        f"; annotators disagree on {what} (alpha of mention {cell(group.mention)}, of "
        f"polarity {cell(group.polarity)})."
    )


def _people(report: Report) -> list[str]:
    lines = []
    moved = [one for one in report.annotators if not one.alpha_change.reason]
    if moved:
        most = max(moved, key=lambda one: one.alpha_change.value)
        if most.alpha_change.value >= _CHANGE:
            lines.append(
                f"Without {most.name} alpha would be {cell(most.alpha_without)}: "
                "look at what differs there before anything else."
            )
    for one in report.against_humans:
        if not one.kappa_with_humans.reason:
            text = f"{one.name} has a mean kappa of {cell(one.kappa_with_humans)} with "
            text += "each human"
            if not one.human_kappa.reason:
                text += f", the humans {cell(one.human_kappa)} with each other"
            lines.append(text + ".")
    return lines


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
