# SPDX-License-Identifier: Apache-2.0
"""Tables of the comparison: what stands in them, zero-shot, variants in a training."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare_heads, train_command
from experiments.heads import running, summary, tables, zero_shot
from experiments.heads.cells import Cells, Key
from fulcra_jax import configs, scoring
from fulcra_jax.data import source

SKILL = {
    "shared": 0.6, "query": 0.95, "first": 0.6, "query-definition": 0.9,
    "shared@mine": 0.95,
}  # fmt: skip


@pytest.fixture
def debug(tmp_path, monkeypatch):
    """Arguments of the size debug, with a training that knows labels by chance."""

    def trained(run, config, held):
        recipe = run.name.split(".")[0]
        labels, _ = source.label_arrays(held)
        rng = np.random.default_rng([config.seed, len(recipe)])
        skill = 0.7 if config.leave_out else SKILL[recipe]
        ids = np.where(
            rng.random(labels.shape) < skill, np.rint(labels).astype(int) + 1, 1
        )
        told = {"steps": 1, "seconds": 2.0, "gflops": 1.0, "passes": 1, "parameters": 9}
        noise = rng.dirichlet([1, 1, 1], ids.shape)
        return (0.6 * np.eye(3)[ids] + 0.4 * noise).astype(np.float32), told

    monkeypatch.setattr(running, "_trained", trained)
    monkeypatch.setattr(running, "FLOORS", ("majority",))
    monkeypatch.setattr(summary, "RESAMPLES", 100)
    monkeypatch.setattr(zero_shot, "RESAMPLES", 100)

    def arguments(stage, **fields):
        return compare_heads.Arguments(stage, size="debug", out=str(tmp_path), **fields)

    return arguments


def test_the_debug_size_has_folds_and_all_tables_in_one_file(debug, tmp_path, capsys):
    compare_heads.compare(debug("screen"))
    compare_heads.compare(debug("zero-shot"))
    compare_heads.compare(debug("final"))
    text = (tmp_path / "report.md").read_text()
    order = [text.index(f"## {name}") for name in (
        "screening dev: judged on dev", "heads dev: judged on dev",
        "heads folds: 2 folds, pooled", "zero-shot",
    )]  # fmt: skip
    assert order == sorted(order)
    with (tmp_path / "heads-folds-differences.csv").open() as file:
        rows = {(r["recipe"], r["figure"]): r for r in csv.DictReader(file)}
    row = rows["query", "macro_f1"]
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert float(row["p"]) <= float(row["q"]) < 0.05
    # Training nothing, report makes them all again.
    (tmp_path / "report.md").unlink()
    capsys.readouterr()
    compare_heads.compare(debug("report"))
    assert (tmp_path / "report.md").read_text() == text
    assert "cells are finished" not in capsys.readouterr().out


def test_a_report_names_cells_of_other_settings_and_leaves_them_out(debug, tmp_path):
    compare_heads.compare(debug("final", folds=0, recipes=("shared", "query", "first")))
    cells = Cells(tmp_path / "cells")
    settings = cells.read()[Key("query", "dev", 0)].settings
    table = cells.table.read_text().replace(settings, "0123456789ab")
    cells.table.write_text(table)
    compare_heads.compare(debug("report"))
    text = (tmp_path / "heads-dev.md").read_text()
    assert "Left out: query, dev, seed 0, a cell of other rows" in text
    assert "| query |" not in text
    assert "| first |" in text


def test_a_damaged_cell_is_named_and_the_others_stay(debug, tmp_path, capsys):
    compare_heads.compare(debug("final", folds=0, recipes=("shared", "query")))
    text = (tmp_path / "heads-dev.md").read_text()
    assert f"Rows of {tmp_path / 'embedded'}." in text
    (tmp_path / "cells" / "query.dev.0.npz").write_bytes(b"half")
    (tmp_path / "heads-folds.md").write_text("of other rows")
    compare_heads.compare(debug("report"))
    text = (tmp_path / "report.md").read_text()
    assert "Left out: query seed 0: " in text
    assert "query.dev.0.npz: is no cell's predictions" in text
    assert "| shared |" in text
    assert "of other rows" not in text
    capsys.readouterr()
    compare_heads.compare(debug("report", cells=str(tmp_path / "none")))
    assert f"nothing is finished in {tmp_path / 'none'}/\n" in capsys.readouterr().out


def test_what_cannot_be_checked_is_said(debug, tmp_path):
    arguments = debug("final", folds=0)
    compare_heads.compare(arguments)
    setting, cells = compare_heads.setting_of(arguments), Cells(tmp_path / "cells")
    finished = cells.read()
    settings, notes = tables.checked(setting, cells, finished, encoder_known=False)
    assert [key.recipe for key in settings] == ["majority"]
    assert notes == [
        "Not checked against a configuration, as the encoder is not given "
        "(--encoder): query, shared."
    ]
    settings, notes = tables.checked(setting, cells, finished, encoder_known=True)
    assert settings == {key: cell.settings for key, cell in finished.items()}
    assert not notes


def test_several_encoders_stand_in_one_table(debug, tmp_path, capsys):
    one = {"folds": 0, "recipes": ("shared",)}
    compare_heads.compare(debug("final", **one))
    compare_heads.compare(debug("final", encoder_name="mine", **one))
    finished = Cells(tmp_path / "cells").read()
    keys = [Key(name, "dev", 0) for name in ("majority", "shared", "shared@mine")]
    assert list(finished) == keys
    assert (keys[2].variants, keys[2].encoder) == ("shared", "mine")
    assert (tmp_path / "cells" / "shared@mine.dev.0.npz").is_file()
    with (tmp_path / "heads-dev-differences.csv").open() as file:
        rows = {(r["recipe"], r["against"], r["figure"]) for r in csv.DictReader(file)}
    assert ("shared@mine", "shared", "macro_f1") in rows
    # Each is checked against its own encoder, and the other one is named.
    for name, other in (("mine", "shared"), ("", "shared@mine")):
        compare_heads.compare(debug("report", encoder_name=name))
        text = (tmp_path / "heads-dev.md").read_text()
        assert f"encoder is not known here: {other}." in text
        assert "| shared@mine |" in text
    capsys.readouterr()
    compare_heads.compare(debug("final", encoder_name="mine", **one))
    assert "2 of 2 cells are finished" in capsys.readouterr().out


def test_zero_shot_of_a_named_encoder(debug, tmp_path, monkeypatch):
    monkeypatch.setitem(SKILL, "query-definition@mine", 0.9)
    wish = {"values": ("Power",), "encoder_name": "mine"}
    compare_heads.compare(debug("zero-shot", **wish))
    finished = Cells(tmp_path / "cells").read()
    assert Key("query-definition@mine", "zero-shot:Power", 0) in finished
    text = (tmp_path / "zero-shot.md").read_text()
    assert "| query-definition@mine | Power |" in text


def test_a_report_needs_no_encoder(debug, tmp_path, capsys):
    rows = compare_heads.setting_of(debug("final")).data
    arguments = compare_heads.Arguments(
        "report", rows, cells=str(tmp_path / "none"), out=str(tmp_path / "tables")
    )
    compare_heads.compare(arguments)
    assert "nothing is finished" in capsys.readouterr().out


def test_recipes_without_all_folds_are_named(debug, tmp_path):
    compare_heads.compare(debug("final", only="folds"))
    cells = Cells(tmp_path / "cells")
    kept = [
        line
        for line in cells.table.read_text().splitlines()
        if not line.startswith("query,fold1")
    ]
    cells.table.write_text("\n".join(kept) + "\n")
    compare_heads.compare(debug("report"))
    text = (tmp_path / "heads-folds.md").read_text()
    assert "Not all splits yet: query seed 0 (1 of 2)." in text
    assert "| query |" not in text


def test_cells_that_another_process_finished_are_not_trained_again(
    debug, tmp_path, monkeypatch
):
    arguments, done = debug("screen"), []
    run_cell = running.run_cell

    def both(setting, key, cells):
        done.append(key.recipe)
        if key.recipe == "shared":
            run_cell(setting, Key("query", "dev", 0), cells)
        return run_cell(setting, key, cells)

    monkeypatch.setattr(running, "run_cell", both)
    compare_heads.compare(arguments)
    assert done == ["majority", "shared"]


def test_zero_shot_figures_are_those_of_the_plain_functions(debug, tmp_path):
    arguments = debug("zero-shot", values=("Power", "Security"))
    compare_heads.compare(arguments)
    setting, cells = compare_heads.setting_of(arguments), Cells(tmp_path / "cells")
    wanted = zero_shot.keys(["query-definition"], setting, arguments.values)
    found = zero_shot.judge(setting, cells, "query-definition", wanted[1:])
    assert [row.name for row in found] == ["Power", "Security", "mean"]
    config = running.config_of(setting, wanted[0])
    rows = [r for r in running.prepare.read_corpus(config).rows["dev"] if r.where.any()]
    labels, where = source.label_arrays(rows)
    for row, key, column in zip(found, wanted[1:], (4, 5), strict=False):
        probs = cells.probs(key, zero_shot.row_keys(rows))[:, column]
        positive, counts = jnp.asarray(labels[:, column] > 0), where[:, column]
        want = scoring.auroc(
            jnp.asarray(probs[:, 2] - probs[:, 0]), positive, where=jnp.asarray(counts)
        )
        table = scoring.confusion(
            jnp.asarray(probs.argmax(-1)),
            jnp.asarray(np.rint(labels[:, column]).astype(int) + 1),
            where=jnp.asarray(counts),
        )
        np.testing.assert_allclose(row.figures[0], want, atol=1e-5)
        want = scoring.macro_f1(table, present_only=True)
        np.testing.assert_allclose(row.figures[2], want, atol=1e-5)
        assert row.supported == int(positive[counts].sum())
        assert (row.intervals[:5, 0] <= row.figures + 1e-5).all()
        assert (row.figures <= row.intervals[:5, 1] + 1e-5).all()
    np.testing.assert_allclose(
        found[2].figures, (found[0].figures + found[1].figures) / 2, atol=1e-5
    )
    with (tmp_path / "zero-shot.csv").open() as file:
        assert [row["value"] for row in csv.DictReader(file)] == [
            "Power", "Security", "mean",
        ]  # fmt: skip


def test_a_value_that_is_none_is_refused(debug):
    with pytest.raises(KeyError, match="the value 'Thrift' is unknown; known are:"):
        compare_heads.compare(debug("zero-shot", values=("Thrift",)))
    with pytest.raises(ValueError, match="a value stands twice in --values"):
        compare_heads.compare(debug("zero-shot", values=("Power", "Power")))


def test_a_training_takes_variants():
    def parsed(*words):
        return train_command.parse(["debug", *words], "")

    asked = parsed("--run", "r", "--variant", "query+ordinal", "--steps", "7").config
    assert isinstance(asked.evaluator.head, configs.QueryHead)
    assert (asked.evaluator.link, asked.steps) == ("ordinal", 7)
    hidden = ["--evaluator.head.hidden", "8"]
    narrow = parsed("--variant", "shared", *hidden).config.evaluator.head
    assert narrow == configs.SharedHead(pool="mean", hidden=8)
    assert "debug+query" in parsed("--variant", "query").run.name
    with pytest.raises(KeyError, match="variant 'qery' is unknown"):
        parsed("--variant", "qery")
    with pytest.raises(ValueError, match="--resume takes no other argument"):
        train_command.parse(["--resume", "r", "--variant", "query"], "")
