# SPDX-License-Identifier: Apache-2.0
"""The floors as a command, on made rows and on the released ones."""

import json
import pathlib

import numpy as np
import pytest
import tiny_models

from experiments import floors, seen

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fulcra"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def scored(answer, score):
    return {"prompt": f"Is {answer} good?", "answer": answer, "value_reward": score}


def labelled(answer, sign):
    return {
        "dialogue": f"Human: Is {answer} good?\nBob: {answer}",
        "value_items": [],
        "value_types": [f"power: {sign}"],
    }


@pytest.fixture
def folder(tmp_path):
    """Rows whose words tell the score: "gold" is power, "sand" the opposite."""
    words = {"gold": 0.8, "sand": -0.6}
    for split, count in (("train", 8), ("dev", 3)):
        pairs = [
            (f"{word} and {split} {n} again", score)
            for word, score in words.items()
            for n in range(count)
        ]
        write(
            tmp_path / f"official_scores.x.{split}.jsonl",
            [scored(text, [0, 0, 0, 0, score, *[0] * 5]) for text, score in pairs],
        )
        write(
            tmp_path / f"a.{split}.jsonl",
            [labelled(text, "+1" if score > 0 else "-1") for text, score in pairs],
        )
    return tmp_path


def test_rows_that_a_run_has_seen_are_told(folder, capsys, monkeypatch):
    model = str(tiny_models.write(folder / "tiny", 0))
    said = lambda runs, held: [f"{runs[0]} was trained on {len(held)} rows"]
    monkeypatch.setattr(seen, "trained_on", said)
    floors.judge(floors.Arguments(str(folder), (model,)))
    told = f"warning: {model} was trained on 6 rows; the figures flatter"
    assert capsys.readouterr().out.count(told) == 2


@pytest.mark.usefixtures("one_device")
def test_a_run_stands_beside_the_floors(folder, capsys):
    model = str(tiny_models.write(folder / "tiny", 0))
    found = floors.judge(floors.Arguments(str(folder), (model,)))
    shown = capsys.readouterr().out
    assert "labels: 16 rows of train, 6 of dev" in shown
    assert "official scores: 16 rows of train, 6 of dev" in shown
    names = [system["name"] for system in found["labels"]["systems"]]
    assert names == ["run", "majority", "TF-IDF + LR"]
    assert found["labels"]["systems"][2]["pooled"]["accuracy"] == 1.0
    run, ridge, both = found["official_scores"]["systems"]
    assert ridge["all"]["values"]["Power"]["r2"] > 0.5
    difference, other, _ = found["official_scores"]["differences"]
    assert difference["name"] == "run - TF-IDF + ridge"
    assert other["name"] == "run & TF-IDF + ridge - TF-IDF + ridge"
    assert both["all"]["r2_pooled"] not in (
        run["all"]["r2_pooled"],
        ridge["all"]["r2_pooled"],
    )
    # The squared error of a mean is no more than the mean of the squared errors.
    assert both["all"]["mse"] <= (run["all"]["mse"] + ridge["all"]["mse"]) / 2
    want = run["all"]["r2_pooled"] - ridge["all"]["r2_pooled"]
    assert difference["all"]["r2_pooled"]["difference"] == pytest.approx(want)


def test_ridge_scores_stay_in_range(folder):
    train, held = (
        floors.read_official(folder / f"official_scores.x.{split}.jsonl")[0]
        for split in ("train", "dev")
    )
    found = floors.tfidf_ridge(train, held)
    assert found.shape == (6, 10)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(floors.train_mean(train, held)[:, 4], 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "gone is no folder"), (".", "no file in FULCRA's format or of official")],
)
def test_a_folder_without_data_is_refused(tmp_path, capsys, name, message):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "safety_issues": []}\n')
    assert floors.main(["--data", str(tmp_path / name)]) == 1
    assert message in capsys.readouterr().err


def test_scores_without_a_split_to_judge_are_refused(folder, capsys):
    for split in ("train", "dev"):
        (folder / f"a.{split}.jsonl").unlink()
    (folder / "official_scores.x.dev.jsonl").unlink()
    assert floors.main(["--data", str(folder)]) == 1
    assert "official_scores.NAME.dev.jsonl; one has no row" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared released rows are not here")
def test_the_floors_of_the_released_rows():
    found = floors.judge(floors.Arguments(str(SHARED)))
    lr = found["labels"]["systems"][1]["pooled"]
    assert [round(lr[name], 2) for name in ("accuracy", "macro_f1")] == [0.89, 0.73]
    assert lr["f1_opposed"] == pytest.approx(0.462, abs=2e-3)
    ridge = found["official_scores"]["systems"][0]["all"]
    assert ridge["rows"] == 543
    assert ridge["mse"] == pytest.approx(0.0704, abs=1e-4)
    assert ridge["r2_outside"] == pytest.approx(0.491, abs=1e-3)
    assert ridge["spearman"] == pytest.approx(0.514, abs=1e-3)
    assert found["official_scores"]["systems"][0]["unrepeated"]["rows"] == 435
