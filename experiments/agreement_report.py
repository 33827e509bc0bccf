# SPDX-License-Identifier: Apache-2.0
"""How far annotators agree: a report of an annotated file.

python -m experiments.agreement_report FILE

python -m experiments.agreement_report FILE --out runs/agreement --disputed 50

python -m experiments.agreement_report --demo        a simulated file, quality known

FILE is .jsonl (one judgement a line) or .csv (with a header): item, value, annotator,
kind (human or llm), label (-1, 0, 1 or null for no answer); pass (0 where left out),
source and prompt_id (may be null). Prints a short version and writes to OUT:
report.md, report.json, values.png, kappas.png, disputed.csv, consistency.csv (texts
on which an annotator's passes differ, the worst first) and rejects.jsonl with the lines
that could not be used. An older report in OUT is replaced.
"""

import csv
import dataclasses
import json
import math
import pathlib
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence

import tyro

from experiments import agreement_demo
from experiments.exits import exit_code
from fulcra_jax.annotation import judgements
from fulcra_jax.report import (
    agreement,
    agreement_figures,
    agreement_prose,
    agreement_tables,
    agreement_terminal,
    panel,
    tables,
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to report on, and how."""

    file: tyro.conf.Positional[str] = ""
    """An annotated file, .jsonl or .csv."""
    out: str = ""
    """Directory of the report; empty takes runs/agreement-NAME after the file's
    name."""
    resamples: int = 1000
    """Of the bootstrap over prompts."""
    level: float = 0.95
    """Of the intervals."""
    disputed: int = 20
    """How many of the most disputed items to list."""
    any_value: bool = False
    """Whether to accept other value names than the ten basic values."""
    seed: int = 0
    """Of the resamples, and of the demo."""
    demo: bool = False
    """Report on a simulated file whose annotators' quality is known."""


def agreement_report(arguments: Arguments) -> agreement.Report:
    """Reads, computes, prints and writes."""
    if bool(arguments.file) == arguments.demo:
        raise ValueError(
            "agreement_report: give an annotated file or --demo, "
            + ("not both." if arguments.demo else "see --help.")
        )
    options = agreement.Options(
        resamples=arguments.resamples,
        level=arguments.level,
        disputed=arguments.disputed,
        seed=arguments.seed,
    )
    name = "demo" if arguments.demo else pathlib.Path(arguments.file).stem
    out = pathlib.Path(arguments.out or f"runs/agreement-{name}")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out should name a directory.")
    path = pathlib.Path(arguments.file)
    if arguments.demo:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "demo.jsonl"
        agreement_demo.write(path, arguments.seed)
    begun = time.monotonic()
    say = lambda text: print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)
    say(f"reading {path}")
    found, rejects = judgements.read_judgements(
        path,
        any_value=arguments.any_value,
        progress=lambda lines: say(f"reading, {lines} lines"),
    )
    report = agreement.report(_panel(found), options, say=say)
    write(report, rejects, out)
    say("done\n")
    agreement_terminal.show(report, set_aside(report, rejects))
    if arguments.demo:
        tables.show(known_quality(report))
    if rejects:
        lines = agreement_prose.plural(len(rejects), "line")
        print(f"{lines} set aside; the first is {rejects[0]}")
    pictures = "" if report.pooled is None else "values.png, kappas.png, "
    print(
        f"written to {out}/: report.md, report.json, {pictures}disputed.csv, "
        "rejects.jsonl, consistency.csv"
    )
    return report


def _panel(found: judgements.Judgements) -> panel.Panel:
    fields = dataclasses.fields(panel.Panel)
    return panel.Panel(**{field.name: getattr(found, field.name) for field in fields})


def set_aside(
    report: agreement.Report, rejects: Sequence[judgements.Reject]
) -> agreement_prose.SetAside:
    """The rejects counted: by field, by reason, by annotator."""
    # Reasons that differ in names and numbers only are the same reason.
    reasons = [
        (reject.field, re.sub(r"'[^']*'|\d+", "", reject.reason)) for reject in rejects
    ]
    common = Counter(reasons).most_common(1)
    example = ""
    if common:
        first = rejects[reasons.index(common[0][0])]
        example = f"{first.field}: {first.reason}"
    known = {one.name for one in report.annotators}
    people = dict.fromkeys(reject.annotator for reject in rejects if reject.annotator)
    return agreement_prose.SetAside(
        fields=tuple(Counter(reject.field for reject in rejects).most_common()),
        lines=report.judgements + len(rejects),
        reason=example,
        times=common[0][1] if common else 0,
        lost=tuple(name for name in people if name not in known),
    )


def write(
    report: agreement.Report,
    rejects: Sequence[judgements.Reject],
    out: pathlib.Path,
) -> None:
    """Writes everything to a directory, in place of an older report."""
    out.mkdir(parents=True, exist_ok=True)
    aside = set_aside(report, rejects)
    figures = {"rejects": dict(aside.fields)} | panel.plain(report)
    text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    markdown = agreement_tables.markdown(report, aside)
    (out / "report.md").write_text(markdown, encoding="utf-8")
    judgements.write_rejects(out / "rejects.jsonl", rejects)
    write_disputed(report, out / "disputed.csv")
    write_consistency(report, out / "consistency.csv")
    for picture in ("values.png", "kappas.png"):
        (out / picture).unlink(missing_ok=True)
    if report.pooled is not None:
        agreement_figures.per_value(report, out / "values.png")
        agreement_figures.pair_kappas(report, out / "kappas.png")


def write_disputed(report: agreement.Report, path: pathlib.Path) -> None:
    """One row per disputed cell of the listed items, one column per annotator."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        names = [one.name for one in report.annotators]
        header = ["item", "source", "item_disagreement", "value", "disagreement"]
        writer.writerow([*header, "reversed", *names])
        for one in report.disputed:
            for value, apart, labels in one.values:
                shares = f"{one.score:.4f}", value, f"{apart:.4f}"
                said = ["" if label is None else label for label in labels]
                turned = "yes" if value in one.reversed else ""
                writer.writerow([one.item, one.source, *shares, turned, *said])


def write_consistency(report: agreement.Report, path: pathlib.Path) -> None:
    """One row per text and annotator of several passes, the least consistent first.

    Texts with too few passes to compare come last, without a Jaccard.
    """
    rows = [
        (jaccard, item, one.name, differing)
        for one in report.consistency
        for item, jaccard, differing in one.texts
    ]
    rows.sort(key=lambda row: math.inf if math.isnan(row[0]) else row[0])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "annotator", "signed_jaccard", "differing_values"])
        for jaccard, item, name, differing in rows:
            share = "" if math.isnan(jaccard) else f"{jaccard:.4f}"
            writer.writerow([item, name, share, "; ".join(differing)])


def known_quality(report: agreement.Report) -> tables.Table:
    """What the demo's annotators were made with, beside what was estimated."""
    body = []
    for one in report.annotators:
        _, quality = agreement_demo.QUALITY[one.name]
        pairs = zip(quality, one.sensitivity, strict=True)
        body.append(
            [
                one.name,
                *(f"{tables.number(k)} / {tables.number(s.value)}" for k, s in pairs),
            ]
        )
    header = ["annotator", "-1", "0", "+1"]
    return "says the true label: as simulated / as estimated", header, body


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.agreement_report",
        description=__doc__,
    )
    return exit_code(lambda: agreement_report(arguments))


if __name__ == "__main__":
    sys.exit(main())
