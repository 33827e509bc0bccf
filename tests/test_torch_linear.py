# SPDX-License-Identifier: Apache-2.0
"""The cells of the reference in plain PyTorch; its training is faked."""

import json
import sys
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import benchmarks
from experiments.benchmarks import torch_linear
from experiments.heads.cells import Cells, Key, row_keys
from fulcra_jax.data import source

MODULE = "torch_linear_reference"


@pytest.fixture
def folder(tmp_path):
    """Rows of the embedded corpus in FULCRA's format."""
    for split, count in (("train", 12), ("dev", 6)):
        records = source.sample.sample_records(0, count, split)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"some.{split}.jsonl").write_text(lines)
    return tmp_path


@pytest.fixture
def encoder(tmp_path):
    path = tmp_path / "encoder"
    path.mkdir()
    save_file({"weight": np.zeros(3, np.float32)}, path / "model.safetensors")
    return path


@pytest.fixture
def fitted(monkeypatch):
    """The trainings that were asked for, in order: seed, rows, settings."""
    asked = []

    def fit(folder, train, held, settings, seed, threads):
        asked.append((seed, train, held, settings))
        labels, _ = source.label_arrays(list(held))
        probs = np.eye(3, dtype=np.float32)[np.rint(labels).astype(int) + 1]
        return types.SimpleNamespace(
            probs=probs, steps=5, gflops=0.5, parameters=9, threads=1, version="0"
        )

    module = types.SimpleNamespace(fit=fit)
    monkeypatch.setitem(sys.modules, f"{benchmarks.__name__}.{MODULE}", module)
    monkeypatch.setattr(benchmarks, MODULE, module, raising=False)
    return asked


def arguments_of(folder, encoder, **fields):
    cells = str(folder / "cells")
    return torch_linear.Arguments(str(folder), str(encoder), cells=cells, **fields)


def test_dev_comes_first_and_then_whole_sets_of_folds(folder, encoder):
    keys = torch_linear.keys_of(arguments_of(folder, encoder, seeds=(0, 2)))
    folds = [f"fold{number}" for number in range(5)]
    assert [(key.split, key.seed) for key in keys] == [
        ("dev", 0), ("dev", 2),
        *((name, 0) for name in folds), *((name, 2) for name in folds),
    ]  # fmt: skip


def test_cells_are_written_and_only_missing_ones_trained(
    folder, encoder, fitted, capsys
):
    torch_linear.measure(arguments_of(folder, encoder, only="dev", seeds=(0,)))
    arguments = arguments_of(folder, encoder, only="dev", seeds=(0, 1))
    torch_linear.measure(arguments)
    assert [seed for seed, *_ in fitted] == [0, 1]
    assert "cell 1 of 1: torch-linear, dev, seed 1" in capsys.readouterr().out
    cells = Cells(folder / "cells")
    cell = cells.read()[Key("torch-linear", "dev", 1)]
    assert (cell.macro_f1, cell.steps, cell.parameters) == (1.0, 5, 9)
    assert cell.device == "cpu, 1 threads, torch 0"
    _, _, held, _ = fitted[-1]
    probs = cells.probs(cell.key, row_keys(held))
    labels, where = source.label_arrays(held)
    np.testing.assert_array_equal((probs.argmax(-1) - 1)[where], labels[where])
    assert (folder / "cells" / cell.key.file).stat().st_size < 30_000


def test_folds_are_trained_without_their_own_rows(folder, encoder, fitted):
    torch_linear.measure(arguments_of(folder, encoder, only="folds", seeds=(0,)))
    assert len(fitted) == 5
    seen = []
    for _, train, held, _ in fitted:
        mine, others = row_keys(held).tolist(), row_keys(train).tolist()
        assert not set(mine) & set(others)
        seen += mine
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("changed", ["settings", "encoder", "rows"])
def test_cells_of_something_else_are_refused(folder, encoder, fitted, changed):
    arguments = arguments_of(folder, encoder, only="dev", seeds=(0,))
    torch_linear.measure(arguments)
    match changed:
        case "settings":
            other = torch_linear.Settings(pool="first")
            arguments = arguments_of(
                folder, encoder, only="dev", seeds=(0,), settings=other
            )
        case "encoder":
            tensor = {"weight": np.ones(3, np.float32)}
            save_file(tensor, encoder / "model.safetensors")
        case "rows":
            path = folder / "some.train.jsonl"
            path.write_text("".join(path.read_text().splitlines(True)[1:]))
    with pytest.raises(ValueError, match=r"torch-linear, dev, seed 0 in .* settings"):
        torch_linear.measure(arguments)
    assert len(fitted) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threads": -1}, "threads is -1; it should be 0 or more"),
        ({"seeds": (0, 0)}, r"seeds is \(0, 0\); it should hold different"),
        ({"seeds": (-1,)}, r"seeds is \(-1,\); it should hold different"),
        ({"seeds": ()}, r"seeds is \(\); it should hold different"),
    ],
)
def test_arguments_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        torch_linear.Arguments("rows", "encoder", **fields)


def test_missing_rows_are_told_in_a_sentence(encoder, fitted, capsys):
    told = ["--data", "nowhere", "--encoder", str(encoder)]
    assert torch_linear.main(told) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
