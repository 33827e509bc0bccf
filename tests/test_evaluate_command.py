# SPDX-License-Identifier: Apache-2.0
"""`fulcra evaluate` on files it has never seen: messy, scored, or no use at all."""

import json
import sys

import numpy as np
import pytest
import tiny_models
from sklearn import metrics

from fulcra_jax import cli, values
from fulcra_jax.cli import evaluate_data

FEW = ["--resamples", "30"]
KIND = "PKU-Alignment/alpaca-7b-of-a-very-long-name"
TYPES = [
    ["benevolence: +1", "security:1+"],
    ["universalism: -1"],
    ["power: +1", "power: -1", "conformity: =1"],
    ["humility: 1"],
    ["self-direction: -1", "benevolence: +1"],
]


def labelled(prompt, types, by=KIND):
    return {
        "dialogue": f"Human: {prompt}\nBob: Well, {prompt.lower()}",
        "value_items": [],
        "value_types": types,
        "query_source": "q",
        "response_source": by,
    }


PROMPTS = ["May I?", "Who owns the sea?", "Tell me lies.", "Is gold fair?", "Why work?"]


def scored(prompt, answer, seed):
    reward = np.random.default_rng(seed).uniform(-1, 1, 10).round(3)
    return {"prompt": prompt, "answer": answer, "value_reward": reward.tolist()}


def write(path, records):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def model(one_device, tmp_path_factory):
    return str(tiny_models.write(tmp_path_factory.mktemp("evaluate") / "tiny", 0))


@pytest.fixture
def messy(tmp_path):
    """Ten labelled rows, one without any label, four broken lines."""
    rows = [
        labelled(prompt, types) for prompt, types in zip(PROMPTS, TYPES, strict=True)
    ]
    rows += [
        labelled(prompt + " Really, though, please?", types, "gpt-4")
        for prompt, types in zip(PROMPTS, TYPES, strict=True)
    ]
    bad = ["{broken", "[]", labelled("Bad?", ["joy: +1"]), {"value_types": []}]
    return write(tmp_path / "messy.jsonl", [*rows, labelled("Empty?", []), *bad])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_figure_of_a_messy_file(model, messy, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["evaluate", "--run", model, "--data", messy, "--out", str(out), *FEW]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.replace(str(out), "OUT").splitlines())) <= 80
    assert "10 labelled rows, 1 without a label, 2 cells with both" in said
    assert "4 rows set aside" in said
    for line, reason in (
        (12, "line"),
        (13, "no"),
        (14, "value_types"),
        (15, "dialogue"),
    ):
        told = next(x for x in said.splitlines() if f"messy.jsonl:{line}:" in x)
        assert reason in told
    for title in (
        "accuracy", "macro-F1", "QWK", "MSE", "reversal rate", "exact match", "ECE",
        "class-wise ECE", "Brier", "NLL", "precision", "recall", "support", "F1 -1",
        "F1 +1", "Spearman", "Pearson", "AUROC -1", "AUROC +1", "n -1", "n +1",
        "responses by", "mean",
    ):  # fmt: skip
        assert title in said, title
    assert "whether these are near them is not known" in " ".join(said.split())

    figures = json.loads((out / "figures.json").read_text())
    found = figures["labels"]
    assert (figures["set_aside"], figures["unlabelled"]) == (4, 1)
    assert (found["rows"], found["cells"]) == (10, 98)
    predictions = lines_of(out / "predictions.jsonl")
    assert len(predictions) == 11
    counted = [x for x in predictions if any(x["where"])]
    where = np.array([x["where"] for x in counted])
    labels = np.array([x["labels"] for x in counted])
    classes = np.array([x["classes"] for x in counted])
    scores = np.array([x["scores"] for x in counted])
    y, p = labels[where].astype(int), classes[where]
    assert found["pooled"]["accuracy"] == pytest.approx((y == p).mean(), abs=1e-6)
    assert found["pooled"]["mse"] == pytest.approx(
        np.mean((scores - labels)[where] ** 2), abs=1e-5
    )
    table = metrics.precision_recall_fscore_support(
        y, p, labels=[-1, 0, 1], zero_division=np.nan
    )
    for c, label in enumerate(("-1", "0", "1")):
        entry = found["labels"][label]
        for key, column in zip(("precision", "recall"), table, strict=False):
            want = None if np.isnan(column[c]) else pytest.approx(column[c], abs=1e-6)
            assert entry[key] == want
        assert entry["support"] == table[3][c]
        assert len(entry["recall_interval"]) == 2
    assert set(found["sources"]) == {KIND, "gpt-4"}
    assert found["sources"]["gpt-4"]["n_opposed"] == 2
    assert len(found["mean_interval"]["spearman"]) == 2
    assert None not in found["calibration_interval"]["classwise_ece"]
    rows = (out / "values.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [*values.BASIC, "mean"]
    assert KIND in (out / "report.md").read_text()
    assert len(lines_of(out / "rejects.jsonl")) == 4
    assert (out / "per_value.png").is_file()
    assert cli.main(words) == 1
    assert "nothing is overwritten" in capsys.readouterr().err


def test_no_sklearn_and_no_matplotlib_is_needed(
    model, messy, tmp_path, capsys, monkeypatch
):
    for name in ("sklearn", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "fulcra_jax.report.figures", raising=False)
    monkeypatch.delattr("fulcra_jax.report.figures", raising=False)
    out = tmp_path / "out"
    words = ["evaluate", "--run", model, "--data", messy, "--out", str(out), *FEW]
    assert cli.main(words) == 0
    assert "no picture is drawn: the package matplotlib is" in capsys.readouterr().out
    assert (out / "report.md").is_file()


def test_official_scores_with_and_without_repeated_answers(model, tmp_path, capsys):
    answers = [
        "Sorry, I can't.",
        "sorry i can t",
        "Gladly.",
        "Gold is old.",
        "To live.",
    ]
    records = [
        scored(p, a, n) for n, (p, a) in enumerate(zip(PROMPTS, answers, strict=True))
    ]
    first = write(tmp_path / "official_scores.gpt-4.dev.jsonl", records)
    second = write(tmp_path / "mine.jsonl", [*records[2:], "{}"])
    out = tmp_path / "out"
    words = ["evaluate", "--run", model, "--data", first, "--data", second]
    assert cli.main([*words, "--out", str(out), *FEW]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.replace(str(out), "OUT").splitlines())) <= 80
    found = json.loads((out / "figures.json").read_text())["official_scores"]
    # The three answers of the second file stand in the first one too.
    assert (found["all"]["rows"], found["unrepeated"]) == (8, None)
    predictions = lines_of(out / "predictions.jsonl")
    told = np.array([x["teacher"] for x in predictions])
    ours = np.array([x["scores"] for x in predictions])
    want = 1 - ((told - ours) ** 2).sum() / ((told - told.mean(0)) ** 2).sum()
    assert found["all"]["r2_pooled"] == pytest.approx(want, abs=1e-5)
    assert set(found["distances"]) == {"gpt-4", "(unnamed)"}
    target = [5, 7, 8, 9]
    gap = np.abs(told[:5, target] - 1).sum(1).mean()
    assert found["distances"]["gpt-4"]["h_distance_teacher"] == pytest.approx(gap)
    assert "mean Spearman" in said
    assert "mine.jsonl: 3 rows with official scores, 1 rows set aside" in said


def test_a_folder_gives_its_held_out_files_and_the_means_of_train(tmp_path):
    write(tmp_path / "a.train.jsonl", [labelled(PROMPTS[0], TYPES[0])])
    write(tmp_path / "a.dev.jsonl", [labelled(PROMPTS[1], TYPES[1])] * 2)
    write(tmp_path / "more.jsonl", [labelled(PROMPTS[2], TYPES[2])])
    train = [scored("a", "b", n) for n in range(3)]
    write(tmp_path / "official_scores.x.train.jsonl", train)
    write(tmp_path / "official_scores.x.test.jsonl", train[:2])
    write(tmp_path / "official_scores.x.dev.jsonl", train[:1])
    found = evaluate_data.read_data([str(tmp_path)])
    assert (len(found.labelled), len(found.scored)) == (3, 2)
    means = np.mean([row["value_reward"] for row in train], 0)
    np.testing.assert_allclose(found.outside, means, atol=1e-6)
    found = evaluate_data.read_data([str(tmp_path)], "all")
    assert (len(found.labelled), len(found.scored)) == (4, 6)
    assert found.outside is None


def test_prompts_near_those_of_training_are_told(model, messy, tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    train = [labelled(PROMPTS[0], TYPES[0]), labelled("Who owns the sea", TYPES[1])]
    write(data / "x.train.jsonl", train)
    write(data / "x.dev.jsonl", [labelled("Another one?", TYPES[2])])
    run.mkdir()
    (run / "model").symlink_to(model)
    source = f"Folder(path={str(data)!r}, seed=0, teacher=False, teacher_rows=0)"
    (run / "config.py").write_text(f"Config(source={source}, policy=Policy())\n")
    assert len(evaluate_data.training_prompts([str(run)])) == 2
    assert cli.main(["evaluate", "--run", str(run), "--data", messy, *FEW]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("warning: 20% of the labelled rows") < said.index("figures per")
    assert "2 of 10 (20.0%) have a prompt that is a near duplicate of one of 2" in said
    assert "without them: accuracy" in said
    (data / "x.train.jsonl").unlink()
    assert evaluate_data.training_prompts([str(run)]) is None
    (run / "config.py").write_text("Config(source=print('no'))")
    assert evaluate_data.training_prompts([str(run)]) is None


def test_files_without_a_usable_row_are_refused_in_one_sentence(
    model, tmp_path, capsys
):
    empty = write(tmp_path / "empty.jsonl", [])
    (tmp_path / "none").mkdir()
    cases = [
        (write(tmp_path / "a.jsonl", [labelled("a", [])]), "1 without a label, 0 set"),
        (
            write(tmp_path / "b.jsonl", ["{", "["]),
            "2 set aside; the first is b.jsonl:1",
        ),
        (write(tmp_path / "c.jsonl", [{"prompt": "a"}]), "c.jsonl:1: dialogue: is"),
        (empty, "the file is empty"),
        (str(tmp_path / "none"), "holds no file of the split held-out"),
        (str(tmp_path / "gone.jsonl"), "gone.jsonl: does not exist"),
    ]
    for path, message in cases:
        assert cli.main(["evaluate", "--run", model, "--data", path]) == 1
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1
    good = write(tmp_path / "good.jsonl", [labelled(PROMPTS[0], TYPES[0])])
    for more, message in (
        (["--resamples", "0"], "--resamples is 0; it should be at least 1"),
        (["--seed", "-1"], "--seed is -1; it should be at least 0"),
        (["--out", str(tmp_path)], "nothing is overwritten"),
    ):
        assert cli.main(["evaluate", "--run", model, "--data", good, *more]) == 1
        assert message in capsys.readouterr().err
    assert cli.main(["evaluate", "--run", model, "--data", good, *FEW]) == 0
