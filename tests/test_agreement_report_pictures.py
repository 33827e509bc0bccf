# SPDX-License-Identifier: Apache-2.0
"""The agreement report on a terminal, in tables and pictures: names, sizes."""

import dataclasses

import jax
import matplotlib.pyplot as plt
import pytest
from test_agreement_report import QUICK, seven_raters

from fulcra_jax.report import (
    agreement,
    agreement_cells,
    agreement_figures,
    agreement_tables,
    agreement_terminal,
)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """What takes time here is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def seven():
    return seven_raters()


@pytest.fixture(scope="module")
def many(seven):
    return agreement.report(seven, QUICK)


def test_names_do_not_break_tables_terminals_or_pictures(seven, tmp_path, capsys):
    names = ("a|b", "[bold]x", "<script>", "d\ne", "$f", "\u4e2d\u6587", "h" * 60)
    report = agreement.report(dataclasses.replace(seven, annotators=names), QUICK)
    text = agreement_tables.markdown(report)
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert any(row.startswith("| a\\|b | human") for row in rows)
    assert any(row.startswith("| d e | llm") for row in rows)
    assert "<script>" not in text
    agreement_terminal.show(report)
    assert "[bold]x" in capsys.readouterr().out
    for draw in (agreement_figures.per_value, agreement_figures.pair_kappas):
        draw(report, tmp_path / "a.png")
        first = (tmp_path / "a.png").read_bytes()
        draw(report, tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes() == first


def enlarged(report, raters):
    """The report with copies of its annotators, the first ones with fewer cells."""
    old = [n % len(report.annotators) for n in range(raters)]
    return dataclasses.replace(
        report,
        annotators=tuple(
            dataclasses.replace(report.annotators[a], name=f"n{place}")
            for place, a in enumerate(old)
        ),
        pairs=tuple(tuple(report.pairs[a][b] for b in old) for a in old),
        shared=tuple(tuple(g + h for h in range(raters)) for g in range(raters)),
        consistency=(),
        against_humans=(),
        disputed=(),
    )


@pytest.mark.parametrize(("raters", "drawn"), [(31, 31), (400, 60)])
def test_many_annotators_keep_the_picture_small(many, tmp_path, raters, drawn):
    report = enlarged(many, raters)
    agreement_figures.pair_kappas(report, tmp_path / "a.png")
    height, width, _ = plt.imread(tmp_path / "a.png").shape
    assert max(height, width) < 3000
    text = agreement_tables.markdown(report)
    said = "only the 60 annotators with the most cells of 400; all pairs stand in"
    assert text.count(said) == (2 if drawn < raters else 0)  # table and picture
    table = text[text.index("Cohen's kappa of pairs over all cells") :].split("\n\n")[1]
    header = table.splitlines()[0].strip("|").split("|")[1:]
    wanted = [f"n{n}" for n in range(raters - drawn, raters)]
    assert [name.strip() for name in header] == wanted


def test_many_values_keep_the_picture_small(many, tmp_path):
    group = many.per_value[0]
    names = tuple(f"v{n}" for n in range(2000))
    groups = tuple(dataclasses.replace(group, name=name) for name in names)
    report = dataclasses.replace(enlarged(many, 2), values=names, per_value=groups)
    agreement_figures.per_value(report, tmp_path / "a.png")
    height, _, _ = plt.imread(tmp_path / "a.png").shape
    assert height < 4000


def test_names_are_short_printable_and_different(seven, capsys):
    long = "x" * 5000
    names = ("\x1b[2J", "a\u202eb", long + "1", long + "y" + long, long + "z" + long)
    names += ("[l](http://e)", "*f*")
    values_ = "all cells", "<img src=x>", "__v__"
    renamed = dataclasses.replace(seven, annotators=names, values=values_)
    report = agreement.report(dataclasses.replace(renamed, file="\x1b\n.csv"), QUICK)
    text = agreement_tables.markdown(report)
    agreement_terminal.show(report)
    for said in (text, capsys.readouterr().out):
        said.encode()
        assert said.replace("\n", "").isprintable()
        assert long[:61] not in said
        assert "all cells (2)" in said
    assert "<img" not in text
    assert "](http" in text.replace("\\](http", "](http")
    assert "[l](http" not in text
    assert "\\_\\_v\\_\\_" in text
    shown = agreement_cells.presentable(report)
    assert len({one.name for one in shown.annotators}) == 7
    assert report.annotators[2].name == long + "1"
    # The kappas of the humans on a value called all cells are its own.
    section = text[text.index("## 6.") : text.index("## 7.")]
    rows = [row.split(" | ") for row in section.splitlines() if "| all cells" in row]
    assert report.pooled is not None
    assert len(rows) == 2 * 4  # LLMs
    for row in rows:
        group = report.per_value[0] if "(2)" in row[0] else report.pooled
        assert row[2] == agreement_cells.cell(group.human_kappa)
