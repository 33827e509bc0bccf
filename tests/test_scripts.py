# SPDX-License-Identifier: Apache-2.0
"""The commands, end to end on the tiny recipe, and their answers to bad input."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import calibrate, controls, demo, evaluate, floors
from experiments import train as script
from experiments.recipes import RECIPES
from fulcra_jax import cli, convert, inference, models
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.data import source

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def run(one_device, tmp_path_factory):
    """A finished tiny run."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["--source.train", "64", "--source.dev", "24", "--source.test", "24"]
    assert script.main(["debug", "--run", str(path), "--steps", "8", *words]) == 0
    return path


def test_evaluate_writes_figures_tables_and_pictures(run, capsys):
    assert evaluate.main(["--run", str(run)]) == 0
    folder = run / "evaluation-test"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "figures.json",
        "report.md",
        "predictions.jsonl",
        "per_value.png",
        "curve.png",
    }
    report = json.loads((folder / "figures.json").read_text())
    assert [s["name"] for s in report["systems"]] == [
        "evaluator",
        "majority",
        "TF-IDF + LR",
    ]
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 24
    assert {"scores", "classes", "labels", "line"} <= set(json.loads(lines[0]))
    assert "macro-F1" in capsys.readouterr().out


def test_evaluate_reads_a_file_it_has_never_seen(run, tmp_path, capsys):
    record = {
        "dialogue": "Human: May I?\nBob: You may.",
        "value_items": [],
        "value_types": ["power: +1"],
    }
    path = tmp_path / "new.jsonl"
    path.write_text(json.dumps(record) + "\n{broken\n")
    assert evaluate.main(["--run", str(run), "--data", str(path), "--no-tfidf"]) == 0
    assert (run / "evaluation-new" / "report.md").is_file()
    assert "1 rows set aside" in capsys.readouterr().out


def test_evaluate_goes_by_decisions_beside_the_model(run, capsys):
    assert calibrate.main([str(run), "--folds", "2"]) == 0
    decisions = run / "model" / "decisions.json"
    try:
        assert "macro-F1" in capsys.readouterr().out
        assert (run / "calibration-dev" / "reliability.png").is_file()
        assert evaluate.main(["--run", str(run), "--split", "dev", "--no-tfidf"]) == 0
        said = capsys.readouterr().out
        assert "decisions.json is used: fitted on 24 rows, dev@" in said
        assert "warning: these are the rows" in said
        with (run / "evaluation-dev" / "predictions.jsonl").open() as file:
            rows = [json.loads(line) for line in file]
        answers = inference.Predictor.load(run).score(
            [row["prompt"] for row in rows], [row["response"] for row in rows]
        )
        classes = [row["classes"] for row in rows]
        np.testing.assert_array_equal(classes, answers.classes())
    finally:
        decisions.unlink()


def test_score_prints_bars_or_writes_a_file(run, tmp_path, capsys):
    words = ["score", "--run", str(run)]
    assert cli.main([*words, "--prompt", "May I?", "--response", "You may."]) == 0
    assert "Universalism" in capsys.readouterr().out
    data = tmp_path / "in.jsonl"
    data.write_text(
        '{"dialogue": "Human: a\\nBob: b", "response_source": "alpaca"}\n'
        '{"prompt": "a", "response": "b", "model": "own"}\n'
        '{"prompt": "a", "answer": "b", "response_source": ""}\n'
    )
    out = tmp_path / "out.jsonl"
    more = [*words, "--data", str(data), "--model", "gpt"]
    assert cli.main([*more, "--out", str(out)]) == 0
    found = inference.read_scores(out)
    assert found.prompts == ["a"] * 3
    assert found.models == ["alpaca", "own", "gpt"]
    assert found.probs.shape == (3, 10, 3)
    np.testing.assert_array_equal(found.scores[1:], found.scores[:-1])
    assert len(set(found.evaluators)) == 1
    assert found.evaluators[0] == inference.evaluator_id(run)
    # Without a file, the same lines are printed.
    capsys.readouterr()
    assert cli.main(more) == 0
    assert capsys.readouterr().out == out.read_text()
    assert cli.main([*words, "--data", str(data), "--out", str(out)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--response", "a", "--data", "b"], "either --response"),
        ([], "either --response"),
        (["--data", "nowhere.jsonl"], "does not exist"),
        (["--response", "  "], "either --response"),
        (["--response", "a", "--batch-size", "0"], "batch_size is 0"),
        (["--response", "\udcff"], "half a character"),
        (["--response", "a", "--out", "no/where.jsonl"], "the folder of --out"),
    ],
)
def test_score_refuses_in_one_sentence(run, words, message, capsys):
    assert cli.main(["score", "--run", str(run), *words]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_evaluator_is_known_by_its_weights(run, tmp_path):
    name, _, digest = inference.evaluator_id(run).partition("@")
    assert name == "tiny"
    assert len(digest) == 12
    assert inference.evaluator_id(run / "model") == f"tiny@{digest}"
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        inference.evaluator_id(copy)
    weights = (run / "model" / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights)
    assert inference.evaluator_id(copy) == f"copy@{digest}"
    (copy / "model.safetensors").write_bytes(weights + b" ")
    assert inference.evaluator_id(copy) != f"copy@{digest}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{broken\n", ":1: "),
        ('{"prompt": "a"}\n', ":1: should have the texts"),
        ('{"dialogue": "Human: a"}\n', ':1: dialogue: has no line that starts with "B'),
        ("[1]\n", ":1: is no JSON object"),
        ('{"prompt": "a", "response": null}', ":1: response: is None; it should be"),
        ('{"prompt": "a", "response": " "}', ":1: response: is empty"),
        ('{"prompt": "a", "response": "\\ud800"}', ":1: response: holds half a"),
        ("[" * 200_000, ":1: "),
        ('{"prompt": "a", "response": "b", "model": 3}', ":1: model: is 3; it should"),
    ],
)
def test_score_names_the_line_at_fault(run, text, message, tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text(text)
    assert cli.main(["score", "--run", str(run), "--data", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_score_needs_a_run(tmp_path, capsys):
    words = ["score", "--run", str(tmp_path / "none"), "--response", "a"]
    assert cli.main(words) == 1
    assert "does not exist" in capsys.readouterr().err


def test_score_names_a_folder_that_it_cannot_use(tmp_path, capsys):
    words = ["score", "--run", str(tmp_path), "--response", "a"]
    assert cli.main(words) == 1
    assert "is neither a run, which has a config.py, nor" in capsys.readouterr().err
    encoder = DebertaConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=4,
    )  # fmt: skip
    model = models.Deberta(encoder)
    ids = jnp.ones((1, 3), jnp.int32)
    params = model.init(jax.random.key(0), ids, ids, deterministic=True)["params"]
    convert.save(tmp_path, encoder, params)
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    # The recipe that the advice names is one.
    assert "without a value head" in said
    recipe = said.partition("experiments.train ")[2].split()[0]
    assert recipe in RECIPES


@pytest.mark.slow
def test_the_quick_demo_runs_through(tmp_path, capsys):
    run = tmp_path / "demo"
    assert demo.main(["--quick", "--run", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 3" in shown
    assert shown.count("Universalism") >= len(demo.DIALOGUES)
    assert demo.main(["--quick", "--run", str(run)]) == 1
    assert "never overwrites" in capsys.readouterr().err


def test_demo_refuses_a_folder_that_is_none(tmp_path, capsys):
    run = tmp_path / "demo"
    assert demo.main(["--data", str(tmp_path / "none"), "--run", str(run)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.slow
def test_controls_resume_and_compare(tmp_path, capsys):
    words = ["--recipe", "debug", "--seeds", "0", "--out", str(tmp_path / "c")]
    assert controls.main(words) == 0
    report = json.loads((tmp_path / "c" / "controls.json").read_text())
    names = [entry["name"] for entry in report["differences"]]
    assert names == [
        "seed 0 - majority",
        "seed 0 - seed 0 shuffled",
        "seed 0 - TF-IDF + LR",
    ]
    capsys.readouterr()
    assert controls.main(words) == 0
    assert "trained" not in capsys.readouterr().out
    assert controls.main(["--recipe", "none"]) == 1
    assert "known are: demo" in capsys.readouterr().err


def test_the_floors_find_words_but_not_when_there_are_none():
    rows = source.sample_rows(0, 60)
    majority = floors.majority(rows, rows[:5])
    assert not majority.classes.any()
    # On its own training rows a bag of words is nearly always right.
    fitted = floors.tfidf(rows, rows)
    labels, _ = source.label_arrays(rows)
    assert (fitted.classes == labels).mean() > 0.95


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real rows are not here")
def test_the_floors_on_the_real_rows_are_the_published_ones():
    from fulcra_jax.report import evaluation

    corpus = source.read_folder(source.Folder(str(SHARED)))
    train = [row for row in corpus.rows["train"] if row.where.any()]
    held = corpus.rows["dev"]
    labels, where = source.label_arrays(held)
    macro = [
        evaluation.quick_figures(floor(train, held).classes, labels, where)["macro_f1"]
        for floor in (floors.majority, floors.tfidf)
    ]
    np.testing.assert_allclose(macro, [0.482, 0.726], atol=0.001)
