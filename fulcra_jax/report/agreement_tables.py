# SPDX-License-Identifier: Apache-2.0
"""The agreement report as Markdown."""

from collections.abc import Iterable

from fulcra_jax.report.agreement import Report
from fulcra_jax.report.agreement_cells import (
    cell,
    listed,
    literal,
    number,
    pairs,
    percent,
    plain_number,
    polarity,
    presentable,
    reading,
    reasons,
    safe,
    safe_markdown,
)
from fulcra_jax.report.agreement_groups import (
    ACCEPTABLE,
    FEW,
    GOOD,
    LEAST_POLARITY,
    LEAST_PROMPTS,
    LEAST_UNITS,
    MOST_SOURCES,
    Group,
)
from fulcra_jax.report.agreement_prose import (
    HOW_TO_READ,
    NOTHING,
    ONE_PROMPT,
    SIGNED,
    SetAside,
    against,
    plural,
    readable,
    summary,
)
from fulcra_jax.report.annotators import LABELS


def markdown(report: Report, rejects: SetAside = NOTHING) -> str:
    """The whole report.

    Args:
      report: of `agreement.report`.
      rejects: the lines that were set aside.

    Returns:
      Markdown with tables; pictures are named as `agreement_figures` writes them.
    """
    report, rejects = presentable(report, literal), readable(rejects, literal)
    parts = [f"# Agreement of annotators: {safe(report.file)}\n"]
    parts += [_list(map(safe, summary(report, rejects)))]
    parts += ["## 1. Data\n", *_data(report, rejects)]
    if report.pooled is None:
        only = safe(report.annotators[0].name)
        parts.append(
            f"Only one annotator ({only}) is in the file: there is nobody to agree "
            "with. What follows is self-consistency.\n"
        )
    else:
        parts += ["## 2. Agreement per value\n", *_values(report)]
        parts += ["## 3. Annotators\n", *_annotators(report)]
        parts += ["## 4. Sources\n", *_sources(report)]
    parts += ["## 5. Self-consistency\n", *_consistency(report)]
    if report.pooled is not None:
        parts += ["## 6. LLMs against humans\n", *against(report)]
        parts += ["## 7. Most disputed items\n", *_disputed(report)]
    parts += ["## 8. How to read this\n", HOW_TO_READ]
    return "\n".join(parts)


def _data(report: Report, rejects: SetAside) -> list[str]:
    body = [
        [
            one.name,
            one.kind,
            str(one.passes),
            str(one.judgements),
            number(one.nulls / one.judgements if one.judgements else None),
            str(one.ties),
        ]
        for one in report.annotators
    ]
    header = ["annotator", "kind", "passes", "judgements", "null share", "ties"]
    title = (
        f"{plural(report.items, 'item')} of {plural(report.prompts, 'prompt')}, "
        f"{plural(len(report.values), 'value')} ({listed(report.values)}), "
        f"{report.judgements} judgements"
    )
    parts = [safe_markdown((title, header, body))]
    if any(one.passes > 1 for one in report.annotators):
        parts.append(
            "The passes of one annotator are no independent answers: they are "
            "collapsed to their majority before anybody is compared. A tie is no "
            "answer and counted above.\n"
        )
    if rejects.count:
        fields = ", ".join(f"{field} {count}" for field, count in rejects.fields)
        parts.append(
            f"**Set aside: {plural(rejects.count, 'line')}** ({fields}), with reasons "
            "in rejects.jsonl.\n"
        )
    else:
        parts.append("No line was set aside.\n")
    return parts


_COEFFICIENTS = (
    ("observed", "observed"),
    ("chance", "by chance"),
    ("alpha", "alpha"),
    ("alpha_interval", "alpha, interval level"),
    ("ac1", "AC1"),
    ("light", "mean kappa"),
    ("mention", "alpha of mention"),
    ("polarity", "alpha of polarity"),
)


def _values(report: Report) -> list[str]:
    assert report.pooled is not None
    groups = [*report.per_value, report.pooled]
    of_humans = _with_humans(report)
    columns = _COEFFICIENTS + ((("human_alpha", "alpha of humans"),) * of_humans)
    header = ["value", "units", "-1", "0", "+1", "not 0"]
    header += [title for _, title in columns] + ["reading"]
    body = [
        [
            _WITHIN if group is report.pooled else group.name,
            str(group.units),
            *map(str, group.labels),
            number(group.base_rate.value),
            *(_coefficient(group, key) for key, _ in columns),
            reading(group),
        ]
        for group in groups
    ]
    options = report.options
    made = sorted({g.alpha.interval for g in groups if g.alpha.interval})
    ac1 = sorted({_AC1[g.ac1.interval] for g in groups if g.ac1.interval})
    title = (
        "units are cells with two ratings or more; intervals "
        f"{percent(options.level)}: alpha {' or '.join(made) or 'none'} "
        f"({options.resamples} resamples of prompts), AC1 {' or '.join(ac1) or 'none'}"
    )
    parts = [*_warnings(report), safe_markdown((title, header, body))]
    parts += reasons(
        (group.name, title, getattr(group, key))
        for group in groups
        for key, title in columns
        if key != "polarity" or group.polarity_units >= LEAST_POLARITY
    )
    lost = [g for g in groups if g.undefined_resamples > 0.05 * options.resamples]
    parts += [
        f"- {safe(g.name)}: alpha is undefined in {g.undefined_resamples} of "
        f"{options.resamples} resamples; its interval holds for the others only.\n"
        for g in lost
        if g.alpha.interval
    ]
    if made and report.prompts < 20:
        parts.append(
            f"Only {plural(report.prompts, 'prompt')}: intervals that resample them "
            "are rough.\n"
        )
    if report.prompts == 1:
        parts.append(ONE_PROMPT + "\n")
    parts.append(
        f"*{_WITHIN}*: observed and expected disagreement are added up over values, "
        "each expected from the labels of its own value, so that knowing which value "
        "is rare is no agreement; by chance and reading follow it. The other "
        "coefficients of that row pool the values and count that knowledge. *Alpha, "
        "interval level* takes labels for numbers: a -1 against a +1 weighs four times "
        "as much as either against 0.\n"
    )
    if {one.kind for one in report.annotators} == {"human", "llm"}:
        alone = " (but for the column of the humans alone)" if of_humans else ""
        parts.append(f"The figures pool humans and LLMs{alone}.\n")
    low, high = plain_number(ACCEPTABLE), plain_number(GOOD)
    parts.append(
        f"Reading: good, the whole interval of alpha lies above {high}; tentative, "
        f"above {low}; too low, below {low}; open, it holds {low}; too few items, "
        f"fewer than {LEAST_UNITS} units or {LEAST_PROMPTS} prompts. *Mention* asks "
        "whether the value is there at all (0 against -1 and +1), *polarity* only for "
        "its sign among those who see it (the units of two such annotators; below "
        f"{LEAST_POLARITY} only their number): the lower one says what to work on in "
        "the guideline.\n\n![Agreement per value](values.png)\n"
    )
    return parts


_WITHIN = "all cells (alpha, chance within each value)"
_ANALYTIC = " (a)"
_AC1 = {
    "analytic": f"analytic where marked{_ANALYTIC}",
    "bootstrap, BCa": "bootstrap, BCa",
    "bootstrap": "bootstrap",
}


def _with_humans(report: Report) -> bool:
    kinds = [one.kind for one in report.annotators]
    return kinds.count("human") >= 2 and "llm" in kinds


def _coefficient(group: Group, key: str) -> str:
    if key == "polarity":
        return polarity(group)
    found = getattr(group, key)
    mark = _ANALYTIC if key == "ac1" and found.interval == "analytic" else ""
    return cell(found) + mark


def _warnings(report: Report) -> list[str]:
    group = report.pooled
    assert group is not None
    parts = []
    if not group.observed.reason:
        parts.append(
            f"**Of the raw agreement of {cell(group.observed)}, chance alone would "
            f"give {cell(group.chance)}: {group.base_rate.value:.0%} of the labels are "
            "not 0. At these shares an alpha of "
            f"{plain_number(ACCEPTABLE)} takes a raw agreement of "
            f"{number(group.needed(ACCEPTABLE))}, one of {plain_number(GOOD)} takes "
            f"{number(group.needed(GOOD))}.**\n"
        )
    few = [g.name for g in report.per_value if g.few]
    if few:
        parts.append(
            f"**Fewer than {FEW} labels are not 0, too few to say anything: "
            f"{safe(listed(few))}.**\n"
        )
    return parts


def _annotators(report: Report) -> list[str]:
    header = ["annotator", "kind", *(f"share of {s}" for s in SIGNED), "mean kappa"]
    header += ["agrees with the others' majority", "kappa with it"]
    header += [
        "alpha without",
        "change",
        *(f"says {s} when {s} is true" for s in SIGNED),
    ]
    entries = (
        ("mean kappa", "kappa"),
        ("agreement with the majority", "with_majority"),
        ("kappa with the majority", "kappa_with_majority"),
        ("alpha without", "alpha_without"),
        ("change", "alpha_change"),
    )
    body = [
        [
            one.name,
            one.kind,
            *map(number, one.shares),
            *(cell(getattr(one, key)) for _, key in entries),
            *map(cell, one.sensitivity),
        ]
        for one in report.annotators
    ]
    parts = [safe_markdown(("over all cells", header, body))]
    parts += reasons(
        (one.name, title, figure)
        for one in report.annotators
        for title, figure in (
            *((title, getattr(one, key)) for title, key in entries),
            *zip(
                (f"says {s} when {s} is true" for s in SIGNED),
                one.sensitivity,
                strict=True,
            ),
        )
    )
    parts.append(
        "*Alpha without* and *change* take chance within each value; the kappas pool "
        "all values, so that knowing which value is rare counts as agreement in them. "
        "*Change* above 0: agreement rises without this annotator. That may be a "
        "careless annotator, or the only careful one: look at the disputed items. "
        "The last columns are estimated after Dawid and Skene (with prior counts), "
        "from the answers alone: they hold if annotators err independently of each "
        "other, over all values alike. Shared errors, of two LLMs of one family say, "
        "make those who share them look better than they are.\n"
    )
    return parts + pairs(report)


def _sources(report: Report) -> list[str]:
    if not report.per_source:
        return ["No item has a source.\n"]
    header = ["source", "units", "not 0", "observed", "by chance", "alpha", "reading"]
    body = [
        [
            group.name,
            str(group.units),
            number(group.base_rate.value),
            cell(group.observed),
            cell(group.chance),
            cell(group.alpha),
            reading(group),
        ]
        for group in report.per_source
    ]
    parts = [safe_markdown(("over all values, chance within each value", header, body))]
    parts += reasons((g.name, "alpha", g.alpha) for g in report.per_source)
    if report.left_out_sources:
        parts.append(
            f"Only the {MOST_SOURCES} sources with the most items are shown; "
            f"{report.left_out_sources} smaller ones are not.\n"
        )
    return parts


def _consistency(report: Report) -> list[str]:
    if not report.consistency:
        return ["No annotator has two passes or more.\n"]
    parts = []
    titles = ("observed", "by chance", "not 0", "alpha", "AC1")
    keys = ("observed", "chance", "base_rate", "alpha", "ac1")
    for one in report.consistency:
        parts.append(f"### {safe(one.name)}\n")
        below = "; ".join(
            f"{count} of {one.items} below {plain_number(threshold)}"
            for threshold, count in one.below
        )
        few = f" ({one.too_few} of them for too few passes)" if one.too_few else ""
        parts.append(
            f"{one.passes} passes over {one.items} texts. Signed Jaccard of pairs of "
            f"passes: **{cell(one.jaccard)}**, between passes over different texts "
            f"{cell(one.jaccard_by_chance)}. All passes give the same labels on "
            f"{cell(one.equal_vectors)} of the texts. The passes tie on {one.ties} of "
            f"{one.cells} cells. Texts that would go to review for their Jaccard: "
            f"{below}{few}.\n"
        )
        body = [
            [value.name, *(cell(getattr(value, key)) for key in keys)]
            for value in one.values
        ]
        parts.append(safe_markdown(("pairs of passes", ["value", *titles], body)))
        parts += reasons(
            (value.name, title, getattr(value, key))
            for value in one.values
            for title, key in zip(titles, keys, strict=True)
        )
    parts.append(
        "Every text stands with its signed Jaccard in consistency.csv, the lowest "
        "first. Consistency is not correctness: all passes share the errors of their "
        "model.\n"
    )
    return parts


def _disputed(report: Report) -> list[str]:
    if not report.disputed_items:
        return ["The annotators disagree on nothing.\n"]
    if not report.disputed:
        return [f"{report.disputed_items} items are disputed; none is listed.\n"]
    names = [one.name for one in report.annotators]
    body = []
    for one in report.disputed:
        for place, (value, apart, labels) in enumerate(one.values):
            who = [
                listed([n for n, k in zip(names, labels, strict=True) if k == label])
                for label in LABELS
            ]
            first = [one.item, number(one.score)] if place == 0 else ["", ""]
            turned = "yes" if value in one.reversed else ""
            body.append([*first, value, number(apart), turned, *who])
    header = ["item", "disagreement", "value", "on the value", "reversed"]
    header += [f"say {label}" for label in SIGNED]
    title = (
        f"the first {len(report.disputed)} of {report.disputed_items} disputed items, "
        "by the mean over values of the share of disagreeing pairs; reversed, where "
        "somebody says -1 and somebody +1 (disputed.csv has the same, one column per "
        "annotator)"
    )
    return [safe_markdown((title, header, body))]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n"
