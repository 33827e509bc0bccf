# SPDX-License-Identifier: Apache-2.0
"""The comparison of heads: cells, what is missing, tables; training is faked."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from experiments import compare_heads, prepare
from experiments.heads import running, summary, variants, zero_shot
from experiments.heads.cells import FIELDS, Cell, Cells, Key, row_keys
from experiments.recipes import RECIPES
from fulcra_jax import configs
from fulcra_jax.data import source

SETTING = running.Setting(RECIPES["debug"][1], "", "", pathlib.Path("unused"))


def cell(recipe="shared", split="dev", seed=0, settings="abc", **fields):
    numbers: dict[str, Any] = dict(
        rows=2, accuracy=0.5, macro_f1=0.4, f1_opposed=0.1, f1_none=0.9,
        f1_supported=0.2, steps=3, seconds=1.5, gflops=0.25, passes=1, parameters=7,
        device="cpu", commit="1234567",
    )  # fmt: skip
    return Cell(recipe, split, seed, settings, **(numbers | fields))


def test_a_cell_is_read_as_it_was_written(tmp_path):
    cells = Cells(tmp_path)
    assert cells.read() == {}
    keys = np.array([2**63 + 1, 5], np.uint64)
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 10))
    cells.add(cell(), keys, probs)
    cells.add(cell("query+ordinal", "fold3", 2), keys, probs)
    assert cells.read() == {
        c.key: c for c in (cell(), cell("query+ordinal", "fold3", 2))
    }
    found = cells.probs(Key("shared", "dev", 0), keys[::-1])
    np.testing.assert_allclose(found, probs[::-1], atol=1e-3)
    assert (tmp_path / "query+ordinal.fold3.2.npz").is_file()


def test_predictions_of_other_rows_are_refused(tmp_path):
    cells = Cells(tmp_path)
    keys = np.array([1, 2], np.uint64)
    cells.add(cell(), keys, np.zeros((2, 10, 3)))
    for other, common in (([2, 3], 1), ([1], 1), ([1, 2, 3], 2)):
        with pytest.raises(ValueError, match=f"other rows: .*, {common} are the same"):
            cells.probs(Key("shared", "dev", 0), np.array(other, np.uint64))
    path = tmp_path / "shared.dev.0.npz"
    whole = path.read_bytes()
    for damaged in (whole[:-40], b"", b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"0\.npz: is no cell's predictions"):
            cells.probs(Key("shared", "dev", 0), keys)
    np.savez(path, keys=keys, probs=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"of shape \(2, 3\) for 2 rows"):
        cells.probs(Key("shared", "dev", 0), keys)
    (tmp_path / "shared.dev.0.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"shared\.dev\.0\.npz is missing"):
        cells.probs(Key("shared", "dev", 0), keys)


def test_a_damaged_table_names_its_line(tmp_path):
    cells = Cells(tmp_path)
    cells.add(cell(), np.array([1], np.uint64), np.zeros((1, 10, 3)))
    text = cells.table.read_text()
    cells.table.write_text(text.replace(",0.4,", ",much,"))
    with pytest.raises(ValueError, match=r"cells\.csv, line 2: cannot be read"):
        cells.read()
    cells.table.write_text("recipe,split\n")
    with pytest.raises(ValueError, match="its columns are"):
        cells.read()
    assert FIELDS[:4] == ["recipe", "split", "seed", "settings"]


def test_a_row_that_was_half_written_is_no_finished_cell(tmp_path):
    cells, keys = Cells(tmp_path), np.array([1], np.uint64)
    cells.add(cell(), keys, np.zeros((1, 10, 3)))
    whole = cells.table.read_bytes()
    cells.table.write_bytes(whole + b"query,dev,0,abc,2,0.5")
    with pytest.warns(UserWarning, match="its last line has no end"):
        assert list(cells.read()) == [Key("shared", "dev", 0)]
    cells.add(cell("query"), keys, np.zeros((1, 10, 3)))
    assert list(cells.read()) == [Key("shared", "dev", 0), Key("query", "dev", 0)]
    assert cells.table.read_bytes().startswith(whole + b"query,dev,0,abc,2,0.5,0.4")
    assert not list(tmp_path.glob("*.partial"))


def test_rows_are_known_by_their_texts():
    rows = source.sample_rows(0, 3)
    keys = row_keys(rows)
    assert len(set(keys.tolist())) == 3
    np.testing.assert_array_equal(row_keys(rows[::-1]), keys[::-1])


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_every_variant_is_a_configuration(name):
    base = RECIPES["small"][1]
    changed = variants.apply(base, name)
    assert changed == variants.apply(base, name)
    if name != "shared":
        assert changed != base


def test_variants_are_applied_from_left_to_right():
    changed = variants.apply(RECIPES["small"][1], "query+ordinal")
    assert isinstance(changed.evaluator.head, configs.QueryHead)
    assert changed.evaluator.link == "ordinal"


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(KeyError, match="variant 'qery' is unknown; known are: shared"):
        variants.apply(RECIPES["small"][1], "qery")


def test_items_that_the_head_does_not_judge_are_refused():
    base = RECIPES["small"][1]
    head = variants.apply(base, "query+items").evaluator.head
    assert head == configs.QueryHead(items=True)
    with pytest.raises(ValueError, match=r"items\+query counts items in the loss, but"):
        variants.apply(base, "items+query")
    with pytest.raises(ValueError, match="a PromptedHead has no field items"):
        variants.apply(base, "prompted+items")


def test_a_name_that_cannot_be_a_variant_is_refused():
    for name in ("shared", "a+b", ""):
        with pytest.raises(ValueError, match="should be a name that is not taken"):
            variants.register(name, "text", lambda config: config)


def test_settings_change_with_what_decides_the_numbers():
    def told(key, setting=SETTING):
        return running.settings_of(running.config_of(setting, key), key.recipe)

    first = told(Key("shared", "dev", 0))
    assert first == told(Key("shared", "dev", 0))
    assert (
        len({first, told(Key("query", "dev", 0)), told(Key("shared", "dev", 1))}) == 3
    )
    elsewhere = SETTING._replace(out=pathlib.Path("other"))
    assert told(Key("shared", "dev", 0), elsewhere) == first


def fake(monkeypatch, skill):
    """Training that gives the right label of a cell by chance."""

    def trained(run, config, held):
        recipe = run.name.split(".")[0]
        labels, _ = source.label_arrays(held)
        rng = np.random.default_rng([config.seed, len(recipe)])
        right = rng.random(labels.shape) < skill[recipe]
        ids = np.where(right, np.rint(labels).astype(int) + 1, 1)
        told = {"steps": 1, "seconds": 2.0, "gflops": 1.0, "passes": 1, "parameters": 9}
        return np.eye(3, dtype=np.float32)[ids], told

    monkeypatch.setattr(running, "_trained", trained)
    monkeypatch.setattr(running, "FLOORS", ("majority",))
    monkeypatch.setattr(summary, "RESAMPLES", 200)


def test_a_stage_runs_what_is_missing_and_writes_its_tables(
    tmp_path, monkeypatch, capsys
):
    fake(monkeypatch, {"shared": 0.6, "query": 0.95})
    arguments = compare_heads.Arguments("screen", size="debug", out=str(tmp_path))
    compare_heads.compare(arguments)
    text = capsys.readouterr().out
    assert "0 of 3 cells are finished" in text
    assert "cell 3 of 3: query, dev, seed 0" in text
    for ending in ("md", "csv", "png"):
        assert (tmp_path / f"screening-dev.{ending}").is_file()
    compare_heads.compare(arguments)
    assert "3 of 3 cells are finished" in capsys.readouterr().out
    table = (tmp_path / "screening-dev.md").read_text()
    assert "| query | shared | +0." in table


def test_a_better_recipe_is_seen_and_an_equal_one_is_not(tmp_path, monkeypatch):
    fake(monkeypatch, {"shared": 0.6, "query": 0.95, "first": 0.6})
    arguments = compare_heads.Arguments(
        "final", size="debug", out=str(tmp_path), recipes=("shared", "query", "first")
    )
    compare_heads.compare(arguments)
    setting = compare_heads.setting_of(arguments)
    config = running.config_of(setting, Key("shared", "dev", 0))
    held = summary.held_rows({"dev": prepare.read_corpus(config).rows["dev"]})
    cells = Cells(tmp_path / "cells")
    systems = summary.systems_of(cells, held, ["shared", "query", "first"], {}, [])
    found = summary.summarise(systems, held, ["shared"])
    by_name = {entry["recipe"]: entry["macro_f1"] for entry in found.differences}
    low, high = by_name["query"]["interval"]
    assert 0 < low < by_name["query"]["difference"] < high
    assert by_name["query"]["q"] < 0.05 < by_name["first"]["q"]
    assert abs(by_name["first"]["difference"]) < by_name["first"]["visible"]
    # The figure is that of the whole table, computed by another path.
    want = cells.read()[Key("query", "dev", 0)].macro_f1
    np.testing.assert_allclose(found.mean[1, 1], want, atol=1e-4)


def test_a_cell_of_other_settings_is_named_and_kept(tmp_path, monkeypatch):
    fake(monkeypatch, {"shared": 0.6, "query": 0.95})
    arguments = compare_heads.Arguments("screen", size="debug", out=str(tmp_path))
    compare_heads.compare(arguments)
    cells = Cells(compare_heads.cells_folder(arguments))
    settings = cells.read()[Key("query", "dev", 0)].settings
    table = cells.table.read_text().replace(settings, "0123456789ab")
    cells.table.write_text(table)
    with pytest.raises(ValueError, match=r"the first is query, dev, seed 0 \(01234"):
        compare_heads.compare(arguments)


def test_another_stages_run_of_the_same_name_is_not_gone_on_with(tmp_path, monkeypatch):
    fake(monkeypatch, {"shared": 0.6})
    runs, trained = [], running._trained

    def noted(run, config, held):
        runs.append(run)
        return trained(run, config, held)

    monkeypatch.setattr(running, "_trained", noted)
    longer = dataclasses.replace(SETTING.base, steps=99)
    for base in (SETTING.base, longer, longer):
        setting = SETTING._replace(base=base, out=tmp_path)
        running.run_cell(setting, Key("shared", "dev", 0), Cells(tmp_path / "cells"))
    assert runs[0] != runs[1] == runs[2]
    assert {run.parent for run in runs} == {tmp_path / "runs"}


def test_the_time_before_a_kill_counts(tmp_path):
    assert running._spent(tmp_path) == 0.0
    (tmp_path / "config.py").write_text("Config()")
    begun = (tmp_path / "config.py").stat().st_mtime
    line = json.dumps({"time": begun + 12.5, "step": 3})
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{line[:9]}")
    np.testing.assert_allclose(running._spent(tmp_path), 12.5, atol=1e-3)


def test_prompting_takes_one_seed():
    arguments = compare_heads.Arguments(
        "final", "rows", "encoder", recipes=("shared", "prompted"), folds=2
    )
    keys = compare_heads.keys_of(arguments)
    assert {key.seed for key in keys if key.recipe == "prompted"} == {0}
    assert {key.seed for key in keys if key.recipe == "shared"} == {0, 1, 2}
    assert {key.split for key in keys} == {"dev", "fold0", "fold1"}


def test_zero_shot_needs_a_head_that_reads_definitions():
    with pytest.raises(ValueError, match="query has a QueryHead, which learns"):
        zero_shot.keys(["query"], SETTING)
    key = zero_shot.keys(["query-definition"], SETTING)[1]
    config = running.config_of(SETTING, key)
    assert config.leave_out == (zero_shot.COMMON[0],)


def test_values_that_are_left_out_are_not_trained_on():
    config = dataclasses.replace(RECIPES["debug"][1], leave_out=("Power", "Security"))
    rows = prepare.read_corpus(config).rows["train"]
    kept = prepare.trained_on(config, rows)
    _, where = source.label_arrays(kept)
    assert not where[:, [4, 5]].any()
    assert where[:, [0, 9]].any()
    with pytest.raises(ValueError, match="leave_out has 'Thrift'"):
        dataclasses.replace(config, leave_out=("Thrift",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("screen",), "give rows with --data"),
        (("screen", "--data", "x"), "give the encoder that all heads share"),
        (("final", "--size", "debug", "--folds", "1"), "folds is 1"),
        (("final", "--size", "debug", "--folds", "6"), "folds is 6"),
        (("final", "--size", "debug", "--recipes", "nothing"), "'nothing' is unknown"),
        (("final", "--size", "debug", "--recipes", "query", "query"), "stands twice"),
        (
            ("final", "--size", "debug", "--encoder-name", "a b"),
            "encoder_name is 'a",
        ),
        (("final", "--size", "debug", "--encoder-name", "a|b"), "letters, digits"),
        (("final", "--size", "debug", "--baseline", "best"), "of the baseline 'best'"),
        (("final", "--size", "debug", "--recipes", "a@b"), "give --recipes a --enc"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(arguments, message, capsys):
    try:
        code = compare_heads.main(list(arguments))
    except SystemExit as error:  # what tyro finds
        code = error.code
    assert code
    assert message in capsys.readouterr().err


def test_the_screening_leaves_out_what_a_folder_has_no_scores_for(tmp_path, capsys):
    arguments = compare_heads.Arguments("screen", data=str(tmp_path), encoder="x")
    names = [key.recipe for key in compare_heads.keys_of(arguments)]
    assert "shared+teacher" not in names
    assert "left out: shared+teacher" in capsys.readouterr().out
    (tmp_path / "official_scores.x.train.jsonl").touch()
    assert set(variants.SCREENED) <= {
        key.recipe for key in compare_heads.keys_of(arguments)
    }


def test_debug_tables_lie_apart_from_others():
    outs = [compare_heads.Arguments("report", size=s).out for s in ("full", "debug")]
    assert outs == ["runs/heads", "runs/heads-debug"]


def test_variants_are_listed(capsys):
    assert compare_heads.main(["--list"]) == 0
    heads, joined = capsys.readouterr().out.split('joined to a head by "+":')
    assert "relevance times sign [FactoredHead]" in heads
    assert "hidden layer on the first token" in heads
    assert "[HierarchicalHead]" in heads
    assert "focal loss, gamma 2" in joined
    assert "the 54 items too" in joined
    with pytest.raises(SystemExit):
        compare_heads.main([])
    assert "give a stage: screen, final," in capsys.readouterr().err


@pytest.mark.slow
def test_a_cell_is_trained_judged_and_cleared_away(tmp_path, one_device):
    base = dataclasses.replace(RECIPES["debug"][1], steps=6)
    setting = running.Setting(base, "", "", tmp_path)
    cells = Cells(tmp_path / "cells")
    done = running.run_cell(setting, Key("query-definition", "dev", 0), cells)
    assert done.steps == 6
    assert done.passes == 1
    assert done.gflops > 0
    assert not any((tmp_path / "runs").iterdir())
    assert cells.read() == {done.key: done}
