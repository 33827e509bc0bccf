# SPDX-License-Identifier: Apache-2.0
"""How far annotators agree: a report of an annotated file.

python -m experiments.agreement_report FILE

python -m experiments.agreement_report FILE --out runs/agreement --disputed 50

python -m experiments.agreement_report --demo        a simulated file, quality known

FILE is .jsonl (one judgement a line) or .csv (with a header): item, value, annotator,
kind (human or llm), label (-1, 0, 1 or null for no answer); pass (humans may leave it
out), source and prompt_id (may be null). Prints a short version and writes to OUT:
report.md, report.json, values.png, kappas.png, disputed.csv and rejects.jsonl with the
lines that could not be used. An older report in OUT is replaced.
"""

import csv
import dataclasses
import json
import pathlib
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
    agreement_terminal.show(report, counted(rejects))
    if arguments.demo:
        tables.show(known_quality(report))
    if rejects:
        print(f"{len(rejects)} lines set aside; the first is {rejects[0]}")
    print(f"written to {out}/: report.md, report.json, disputed.csv, *.png, rejects")
    return report


def _panel(found: judgements.Judgements) -> panel.Panel:
    fields = dataclasses.fields(panel.Panel)
    return panel.Panel(**{field.name: getattr(found, field.name) for field in fields})


def counted(rejects: Sequence[judgements.Reject]) -> list[tuple[str, int]]:
    """How many lines were set aside for each field, the most frequent first."""
    return Counter(reject.field for reject in rejects).most_common()


def write(
    report: agreement.Report,
    rejects: Sequence[judgements.Reject],
    out: pathlib.Path,
) -> None:
    """Writes everything to a directory, in place of an older report."""
    out.mkdir(parents=True, exist_ok=True)
    reasons = counted(rejects)
    figures = {"rejects": dict(reasons)} | panel.plain(report)
    text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    markdown = agreement_tables.markdown(report, reasons)
    (out / "report.md").write_text(markdown, encoding="utf-8")
    judgements.write_rejects(out / "rejects.jsonl", rejects)
    write_disputed(report, out / "disputed.csv")
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
        writer.writerow([*header, *names])
        for one in report.disputed:
            for value, apart, labels in one.values:
                shares = f"{one.score:.4f}", value, f"{apart:.4f}"
                said = ["" if label is None else label for label in labels]
                writer.writerow([one.item, one.source, *shares, *said])


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
    return "P(says k if true): as simulated / as estimated", header, body


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
