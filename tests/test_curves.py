# SPDX-License-Identifier: Apache-2.0
"""Curves show the figures of every run, and refuse what is no run."""

import json
import re

import pytest

from experiments import curves
from fulcra_jax.report import figures

LINES = [
    {"step": 1, "split": "train", "loss": 2.0, "learning_rate": 0.1,
     "examples_per_s": None},
    {"step": 2, "split": "train", "loss": 1.5, "learning_rate": 0.2,
     "examples_per_s": 40.0},
    {"step": 2, "split": "dev", "macro_f1": 0.25},
    {"step": 3, "split": "train", "loss": 1.0, "learning_rate": 0.1,
     "examples_per_s": 50.0},
]  # fmt: skip


def make_run(path, lines=LINES, tail=""):
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + tail)
    return path


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, before they are closed."""
    found = []
    write = figures._write

    def keep(figure, path):
        found.append(
            {
                axes.get_title(): [
                    line.get_xydata().tolist() for line in axes.get_lines()
                ]
                for axes in figure.axes
            }
            | {"names": [text.get_text() for text in figure.legends[0].get_texts()]}
        )
        write(figure, path)

    monkeypatch.setattr(figures, "_write", keep)
    return found


def test_the_figures_of_every_run_are_drawn(tmp_path, drawn, capsys):
    # The second is still training: its last line is cut in half.
    runs = [
        make_run(tmp_path / "a" / "x"),
        make_run(tmp_path / "b" / "x", LINES[:2], '{"step": 3, "spl'),
    ]
    out = tmp_path / "curves.png"
    assert curves.main([*map(str, runs), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"{out}\n")
    assert re.search(r"loss +1\.000 +1\.500 ", said)
    assert re.search(r"examples/s +45 +40 ", said)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert drawn == [
        {
            "training loss": [
                [[1.0, 2.0], [2.0, 1.5], [3.0, 1.0]],
                [[1.0, 2.0], [2.0, 1.5]],
            ],
            "dev macro-F1": [[[2.0, 0.25]]],
            "learning rate": [
                [[1.0, 0.1], [2.0, 0.2], [3.0, 0.1]],
                [[1.0, 0.1], [2.0, 0.2]],
            ],
            "examples/s": [[[2.0, 40.0], [3.0, 50.0]], [[2.0, 40.0]]],
            "names": ["a/x", "b/x"],
        }
    ]


def test_the_loss_of_a_longer_run_is_averaged(tmp_path, drawn):
    lines = [
        {"step": step, "split": "train", "loss": float(step % 2)}
        for step in range(1, 21)
    ]
    run = make_run(tmp_path / "run", lines)
    assert curves.main([str(run), "--out", str(tmp_path / "curves.png")]) == 0
    each, mean = drawn[0]["training loss"]
    assert each == [[step, step % 2] for step in range(1, 21)]
    assert [step for step, _ in mean] == list(range(1, 21))
    assert [loss for _, loss in mean[:3]] == pytest.approx([1, 1 / 2, 2 / 3])
    assert [loss for _, loss in mean[9:]] == pytest.approx([0.5] * 11)
    assert drawn[0]["names"] == ["run"]


def test_a_run_without_these_figures_leaves_empty_panels(tmp_path, drawn):
    run = make_run(tmp_path / "run", [{"step": 1, "reward": 1.0}])
    curves.draw([run], tmp_path / "curves.png")
    titles = ("training loss", "dev macro-F1", "learning rate", "examples/s")
    assert drawn == [{title: [] for title in titles} | {"names": []}]


def test_runs_of_the_same_figures_give_the_same_picture(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("1.png", "2.png"):
        curves.draw([run], tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is no run: it holds no run.json; give the"),
        (lambda path: None, "is no run"),
        (lambda path: make_run(path, []), "has no figures yet"),
        (lambda path: make_run(path, [], '{"step": 1}'), "has no figures yet"),
        (lambda path: make_run(path, [{}, LINES[0]]), "line 1 is damaged; delete it"),
        (lambda path: make_run(path, [LINES[0]], "[\n"), "line 2 is damaged"),
        (lambda path: make_run(path, [], "[" * 10**5 + "\n"), "line 1 is damaged"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(tmp_path, make, message, capsys):
    make(tmp_path / "run")
    out = tmp_path / "curves.png"
    assert curves.main([str(tmp_path / "run"), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_run_given_twice_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="run is given twice; it should be once"):
        curves.draw([run, run / ".." / "run"], tmp_path / "curves.png")


def test_no_runs_make_no_picture(tmp_path):
    with pytest.raises(ValueError, match="runs is empty; give at least one"):
        figures.training_curves({}, tmp_path / "curves.png")


def test_an_unknown_format_is_refused(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert curves.main([str(run), "--out", str(tmp_path / "curves.abc")]) == 1
    assert "Format 'abc' is not supported" in capsys.readouterr().err


def test_a_picture_without_a_format_is_refused(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert curves.main([str(run), "--out", str(tmp_path / "curves")]) == 1
    assert "curves; it should end in a format, as .png" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
