# SPDX-License-Identifier: Apache-2.0
"""What the figures of an agreement report say, in sentences; LLMs against humans."""

import dataclasses
from collections.abc import Callable

from fulcra_jax.report.against_humans import EPSILON, AltTest
from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_cells import (
    cell,
    listed,
    number,
    one_line,
    plain_number,
    polarity,
    reasons,
    safe,
    safe_markdown,
)
from fulcra_jax.report.agreement_groups import (
    ACCEPTABLE,
    FEW,
    LEAST_POLARITY,
    LEAST_PROMPTS,
    LEAST_UNITS,
    Group,
)
from fulcra_jax.report.panel import Figure

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

SIGNED = ("-1", "0", "+1")

_CHANGE, _ITEMS = 0.05, 30
"""Of alpha, and of items, below which no annotator is named."""
_SHARE = 0.01  # of lines set aside, above which the report begins with them


@dataclasses.dataclass(frozen=True)
class SetAside:
    """The lines that could not be used."""

    fields: tuple[tuple[str, int], ...] = ()
    """How many for each field, the most frequent first."""
    lines: int = 0
    """Of the file, with those that were used."""
    reason: str = ""
    """An example of the most frequent reason."""
    times: int = 0
    """How many lines have a reason like it."""
    lost: tuple[str, ...] = ()
    """Annotators none of whose lines could be used."""

    @property
    def count(self) -> int:
        """How many lines were set aside."""
        return sum(count for _, count in self.fields)


NOTHING = SetAside()


def summary(report: Report, rejects: SetAside = NOTHING) -> list[str]:
    """The report in a few sentences, the most important first."""
    kinds = [one.kind for one in report.annotators]
    lines = [
        *_set_aside(readable(rejects)),
        f"{plural(len(kinds), 'annotator')} ({kinds.count('human')} human, "
        f"{kinds.count('llm')} LLM), {plural(report.items, 'item')}, "
        f"{plural(len(report.values), 'value')}: {report.judgements} judgements, "
        f"{report.nulls} without an answer; "
        f"{plural(rejects.count, 'line')} set aside.",
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
            f"{plural(report.disputed_items, 'item')} with a disagreement; the worst "
            f"is {report.disputed[0].item}."
            if report.disputed
            else f"{plural(report.disputed_items, 'item')} with a disagreement."
        )
    return lines


def readable(rejects: SetAside, write: Callable[[str], str] = str) -> SetAside:
    """With texts of the file as one short line each, then as `write` has them."""
    return dataclasses.replace(
        rejects,
        reason=write(one_line(rejects.reason, 300)),
        # More are not listed.
        lost=tuple(write(one_line(name)) for name in rejects.lost),
    )


def _set_aside(rejects: SetAside) -> list[str]:
    if not rejects.lost and rejects.count <= _SHARE * rejects.lines:
        return []
    lost = ""
    if rejects.lost:
        lost = f" No line of {listed(rejects.lost)} could be used."
    return [
        f"**{rejects.count} of {plural(rejects.lines, 'line')} "
        f"{'was' if rejects.count == 1 else 'were'} set aside, most often (in "
        f"{rejects.times}) for a reason like this: {rejects.reason.rstrip('.')}.{lost} "
        "All of them stand in rejects.jsonl.**"
    ]


def _agreement(report: Report, group: Group) -> list[str]:
    if group.alpha.reason:
        return [f"**Alpha is undefined: {group.alpha.reason}.**"]
    lines = [
        f"**Alpha, with chance taken within each value, is {cell(group.alpha)}. Raw "
        f"agreement is {cell(group.observed)}, but chance alone would give "
        f"{cell(group.chance)}; an alpha of .8 would need "
        f"{number(group.needed(0.8))}.**"
    ]
    if not group.human_alpha.reason:
        lines.append(
            f"These figures pool humans and LLMs; alpha of the humans alone is "
            f"{cell(group.human_alpha)}."
        )
    elif {one.kind for one in report.annotators} == {"human", "llm"}:
        lines.append(
            "These figures pool humans and LLMs; the humans alone have no alpha: "
            f"{group.human_alpha.reason}."
        )
    if report.prompts == 1:
        lines.append(ONE_PROMPT)
    if group.too_small:
        lines.append(
            f"**Too few items for a verdict: {plural(group.units, 'cell')} with two "
            f"ratings of {plural(group.prompts, 'prompt')}; it takes {LEAST_UNITS} "
            f"cells of {LEAST_PROMPTS} prompts.**"
        )
    few = [g.name for g in report.per_value if g.few]
    if few:
        lines.append(
            f"**Nothing can be said of {listed(few)}: fewer than {FEW} labels are "
            "not 0.**"
        )
    known = [
        g for g in report.per_value if not (g.few or g.too_small or g.alpha.reason)
    ]
    if len(known) > 1:
        worst = min(known, key=lambda g: g.alpha.value)
        lines.append(
            f"The weakest value is {worst.name}: alpha {cell(worst.alpha)}{_why(worst)}"
        )
    return lines


def _why(group: Group) -> str:
    if group.alpha.value >= ACCEPTABLE:
        return "."
    low = []
    if group.mention.value < ACCEPTABLE:
        low.append("whether it is there at all")
    enough = group.polarity_units >= LEAST_POLARITY
    if enough and group.polarity.value < ACCEPTABLE:
        low.append("its sign")
    what = f"annotators disagree on {' and on '.join(low)} (" if low else "("
    sign = f"of polarity {polarity(group)}"
    if not enough:
        sign = f"too few units with a sign from two annotators, {group.polarity_units}"
    return f"; {what}alpha of mention {cell(group.mention)}, {sign})."


def _people(report: Report) -> list[str]:
    lines = []
    whole = report.pooled
    moved = [one for one in report.annotators if not one.alpha_change.reason]
    if moved and whole and not whole.too_small and report.items >= _ITEMS:
        most = max(moved, key=lambda one: one.alpha_change.value)
        if most.alpha_change.value >= _CHANGE:
            lines.append(
                f"Without {most.name} alpha would be {cell(most.alpha_without)} "
                f"instead of {number(whole.alpha.value)}: this annotator differs from "
                "the others, in error or in care."
            )
    for one in report.against_humans:
        if not one.kappa_with_humans.reason:
            text = f"{one.name} has a mean kappa of {cell(one.kappa_with_humans)} with "
            text += "each human"
            if not one.human_kappa.reason:
                text += f", the humans {cell(one.human_kappa)} with each other"
            lines.append(text + ".")
    return lines


ONE_PROMPT = (
    "There are no intervals, because all items share one prompt: give every prompt a "
    "prompt_id of its own."
)


def against(report: Report) -> list[str]:
    """LLMs against humans: sentences and a table for each LLM."""
    if not report.against_humans:
        return ["It takes humans and LLMs in one file.\n"]
    parts = []
    assert report.pooled is not None
    # All cells first, as in `one.values`.
    human = [g.human_kappa for g in (report.pooled, *report.per_value)]
    for one in report.against_humans:
        parts.append(f"### {safe(one.name)}\n")
        parts.append(
            f"Mean kappa with each human **{cell(one.kappa_with_humans)}**"
            f"{_because(one.kappa_with_humans)}; of the humans with each other "
            f"{cell(one.human_kappa)}{_because(one.human_kappa)}; these and the kappas "
            f"of all cells pool the values. {plural(one.human_ties, 'cell')} "
            f"{'has' if one.human_ties == 1 else 'have'} no human majority and "
            "no place below.\n"
        )
        header = ["value", "kappa with their majority", "mean kappa of two humans"]
        header += [f"{h} -> {m}" for h in SIGNED for m in SIGNED]
        body = [
            [name, cell(kappa), cell(humans)] + [str(n) for row in counts for n in row]
            for (name, kappa, counts), humans in zip(one.values, human, strict=True)
        ]
        title = (
            "counts are cells, human majority -> LLM's majority (a majority is easier "
            "to agree with than one human)"
        )
        parts.append(safe_markdown((title, header, body)))
        parts += reasons((name, "kappa", kappa) for name, kappa, _ in one.values)
        parts += _alternative_test(one.alt_test)
    return parts


def _because(figure: Figure) -> str:
    return f" ({figure.reason})" if figure.reason else ""


def _alternative_test(test: AltTest) -> list[str]:
    if not test.verdict:
        reason = test.winning_rate.reason
        return [f"Alternative annotator test: not computed, {reason}.\n"]
    listed = "; ".join(
        f"{safe(h.name)} {_p(h.p_value)} ({h.cells} cells of {h.items} items"
        + (", beaten)" if h.beaten else ")")
        for h in test.humans
    )
    zeros = "passes" if test.zeros_pass else "fails"
    parts = [
        f"Alternative annotator test over all cells, epsilon {plain_number(EPSILON)}: "
        f"**{test.verdict}**, winning rate {cell(test.winning_rate)}, advantage "
        f"probability {cell(test.advantage)}; a model that always says 0: winning rate "
        f"{cell(test.zeros_winning_rate)}, {zeros}. Against each human: {listed}. The "
        "test takes cells for independent, which the values of one item are not, and "
        "most cells are 0, on which everybody wins: take it with the kappas above, not "
        "instead of them.\n"
    ]
    if test.conditions:
        listed = "; ".join(map(safe, test.conditions))
        parts.append(f"**What the test advises is not met: {listed}.**\n")
    return parts


def _p(figure: Figure) -> str:
    return "p < .001" if figure.value < 0.001 else f"p = {cell(figure)}"


def plural(count: int, noun: str) -> str:
    """A number and its noun: 1 prompt, 2 prompts."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
