# SPDX-License-Identifier: Apache-2.0
"""How far annotators agree: a report of an annotated file.

python -m experiments.agreement_report FILE

python -m experiments.agreement_report FILE --out runs/agreement --disputed 50

python -m experiments.agreement_report --demo        a simulated file, quality known

python -m experiments.agreement_report --demo --demo-items 10000

FILE is .jsonl (one judgement a line) or .csv (with a header): item, value, annotator,
kind (human or llm), label (-1, 0, 1 or null for no answer); pass (0 where left out),
source and prompt_id (may be null). Prints a short version and writes to OUT:
report.md, report.json, values.png, kappas.png, disputed.csv, consistency.csv (texts
on which an annotator's passes differ, the worst first) and rejects.jsonl with the lines
that could not be used. An older report in OUT is replaced.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import pathlib
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import tyro

from experiments import agreement_demo
from experiments.exits import exit_code
from fulcra_jax.annotation import judgement_lines, judgements
from fulcra_jax.report import (
    agreement,
    agreement_cells,
    agreement_figures,
    agreement_prose,
    agreement_tables,
    agreement_terminal,
    panel,
    tables,
)

FILES = (
    "report.md", "report.json", "values.png", "kappas.png", "disputed.csv",
    "consistency.csv", "rejects.jsonl",
)  # fmt: skip
DEMO = "demo.jsonl"
_NAMES_AND_NUMBERS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+""")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to report on, and how."""

    file: tyro.conf.Positional[str] = ""
    """An annotated file, .jsonl or .csv."""
    out: str = ""
    """Directory of the report; empty takes runs/agreement-NAME after the file's
    name."""
    resamples: int = 1000
    """Of the bootstrap over prompts: 100 to 100000."""
    level: float = 0.95
    """Of the intervals: .5 to .9999; the higher, the more resamples it takes."""
    disputed: int = 20
    """How many of the most disputed items to list."""
    any_value: bool = False
    """Whether to accept other value names than the ten basic values."""
    seed: int = 0
    """Of the resamples, and of the demo: from 0 to 2^32 - 1."""
    demo: bool = False
    """Report on a simulated file whose annotators' quality is known."""
    demo_items: int = agreement_demo.ITEMS
    """Items of that file: 10 to 200000, each with 130 judgements."""

    def __post_init__(self) -> None:
        """Refuses what cannot be reported on, before anything is read."""
        if bool(self.file) == self.demo:
            raise ValueError(
                "agreement_report: give an annotated file or --demo, "
                + ("not both." if self.demo else "see --help.")
            )
        if not 10 <= self.demo_items <= 200_000:
            raise ValueError(
                f"agreement_report: demo-items is {self.demo_items}; expected at least "
                "10 and at most 200000."
            )
        if self.demo_items != agreement_demo.ITEMS and not self.demo:
            raise ValueError("agreement_report: --demo-items is the size of --demo.")
        self.options()

    def options(self) -> agreement.Options:
        """How the report is made."""
        return agreement.Options(
            resamples=self.resamples,
            level=self.level,
            disputed=self.disputed,
            seed=self.seed,
        )


def agreement_report(arguments: Arguments) -> agreement.Report:
    """Reads, computes, prints and writes."""
    begun = time.monotonic()
    say = lambda text: print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)
    name = "demo" if arguments.demo else pathlib.Path(arguments.file).stem
    out = pathlib.Path(arguments.out or f"runs/agreement-{name}")
    path = out / DEMO if arguments.demo else pathlib.Path(arguments.file)
    with _prepared(out, path):
        if arguments.demo:
            say(f"simulating {arguments.demo_items} items")
            told = lambda lines: say(f"simulating, {lines} lines")
            agreement_demo.write(path, arguments.seed, arguments.demo_items, told)
        say(f"reading {judgement_lines.shown(path)}")
        found, rejects = judgements.read_judgements(
            path,
            any_value=arguments.any_value,
            progress=lambda lines: say(f"reading, {lines} lines"),
        )
    unused = judgement_lines.unused_fields(path)
    report = agreement.report(_panel(found), arguments.options(), say=say)
    say("writing")
    write(report, rejects, out)
    say("done\n")
    agreement_terminal.show(report, set_aside(report, rejects))
    if arguments.demo:
        tables.show(known_quality(report))
    if unused:
        columns = agreement_cells.listed([judgement_lines.shown(x, 40) for x in unused])
        print(f"not used, because no field has this name: {columns}")
    if rejects:
        lines = agreement_prose.plural(len(rejects), "line")
        print(f"{lines} set aside; the first is {rejects[0]}")
    pictures = "" if report.pooled is None else "values.png, kappas.png, "
    print(
        f"written to {judgement_lines.shown(out)}/: report.md, report.json, "
        f"{pictures}disputed.csv, rejects.jsonl, consistency.csv"
    )
    return report


@contextlib.contextmanager
def _prepared(out: pathlib.Path, path: pathlib.Path) -> Iterator[None]:
    """Makes the directory and tries it, before hours of reading and computing.

    If the body fails, directories that were made for it are taken away again.
    """
    place = judgement_lines.shown(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{place} is a file; --out should name a directory.")
    if path.name in FILES and path.resolve().parent == out.resolve():
        raise ValueError(
            f"{judgement_lines.shown(path)} would be overwritten by the report; --out "
            "should name another directory."
        )
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        _remove(made)
        raise OSError(
            f"{place} cannot be written to ({error.strerror}); --out should name a "
            "directory that can."
        ) from None
    for name in (*FILES, DEMO):
        if (out / name).is_dir():
            raise IsADirectoryError(
                f"{place}/{name} is a directory where the report writes a file."
            )
    try:
        yield
    except BaseException:
        _remove(made)
        raise


def _remove(folders: Sequence[pathlib.Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # not made, or no longer empty
            folder.rmdir()


def _panel(found: judgements.Judgements) -> panel.Panel:
    fields = dataclasses.fields(panel.Panel)
    return panel.Panel(**{field.name: getattr(found, field.name) for field in fields})


def set_aside(
    report: agreement.Report, rejects: Sequence[judgements.Reject]
) -> agreement_prose.SetAside:
    """The rejects counted: by field, by reason, by annotator."""
    # Reasons that differ in names and numbers only are the same reason.
    reasons = [
        (reject.field, _NAMES_AND_NUMBERS.sub("", reject.reason)) for reject in rejects
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
        header = ["item", "source", "item_disagreement", "value", "disagreement"]
        header.append("reversed")
        for one in report.annotators:
            name = one.name
            while name in header:  # an annotator called item, say
                name += " (annotator)"
            header.append(name)
        writer.writerow(header)
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
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is printed as its escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = tyro.cli(
        Arguments,
        args=argv,
        prog="python -m experiments.agreement_report",
        description=__doc__,
    )
    return exit_code(lambda: agreement_report(arguments))


if __name__ == "__main__":
    sys.exit(main())
