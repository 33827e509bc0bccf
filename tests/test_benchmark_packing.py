# SPDX-License-Identifier: Apache-2.0
"""The packing benchmark: it runs, and packed logits are those of separate texts."""

import json

import jax
import numpy as np
import pytest

from experiments.benchmarks import packing, packing_ways

TINY = "--model tiny --layers 1 --rounds 1 --retries 0 --texts 12 --rows 2".split()
TINY += ["--capacity", "128", "--batch-size", "4"]


@pytest.mark.slow
def test_it_runs_on_the_embedded_corpus(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # No real rows beside it.
    assert packing.main([*TINY, "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert "embedded corpus, 1,000 rows" in printed
    report = json.loads((tmp_path / "out" / "packing.json").read_text())
    assert report["packed logits"]["difference"] <= 1e-5
    for share in (report["padding"], report["padding of all rows"]):
        assert share["packed"] < share["unsorted"]
    assert set(report["modes"]) == {"forward", "training"}
    assert [line[:4] for line in report["bars"]] == ["bar:"] * 3
    assert (tmp_path / "out" / "packing.md").read_text() in printed
    assert (tmp_path / "out" / "packing.png").stat().st_size > 0


def test_a_missing_file_and_bad_numbers_are_one_sentence(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert packing.main(["--file", str(tmp_path / "none.jsonl"), *out]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert packing.main(["--rounds", "0"]) == 1
    assert "rounds is 0; expected at least 1" in capsys.readouterr().err
    assert packing.main(["--capacity", "4"]) == 1
    assert "capacity is 4; expected a number in" in capsys.readouterr().err
    assert packing.main(["--retries", "-5"]) == 1
    assert "retries is -5; expected at least 0" in capsys.readouterr().err
    for foreign in ("nan", "-0.5", "1.5"):
        assert packing.main(["--foreign", foreign]) == 1
        message = f"foreign is {foreign}; expected a share in [0, 1]."
        assert message in capsys.readouterr().err


def test_results_have_a_place_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(packing_ways, "read_texts", None)
    for name in packing.FILES:
        (tmp_path / name).mkdir()
        assert packing.main(["--out", str(tmp_path)]) == 1
        message = f"{tmp_path / name} is a directory; it should be a file or free"
        assert message in capsys.readouterr().err
        (tmp_path / name).rmdir()
    (tmp_path / "file").touch()
    assert packing.main(["--out", str(tmp_path / "file")]) == 1
    assert "file is a file; out should be a directory" in capsys.readouterr().err


def small():
    """Arguments, texts, evaluator and parameters."""
    arguments = packing_ways.Arguments(
        model="tiny", layers=1, capacity=32, rows=2, batch_size=4, max_segments=8
    )
    random = np.random.default_rng(0)
    lengths = random.integers(3, 20, 14)
    texts = packing_ways.Texts(
        [random.integers(1, 100, n) for n in lengths],
        [np.zeros(n, np.int32) for n in lengths],
        random.integers(-1, 2, (14, 10)).astype(np.float32),
        random.random((14, 10)) < 0.5,
    )
    return arguments, texts, *packing_ways.evaluator_of(arguments, 100)


def test_packed_texts_have_the_logits_and_losses_of_separate_ones():
    arguments, texts, evaluator, params = small()
    batches = packing_ways.batches_of(arguments, texts)
    found = packing_ways.largest_difference(evaluator, params, batches, 14)
    assert found["difference"] < 1e-4 * found["logit"]
    loss = jax.jit(lambda batch: packing_ways.loss_of(evaluator, params, batch))
    totals = {
        name: sum(loss(batch) * batch["labels_where"].sum() for batch in some)
        for name, some in batches.items()
    }
    np.testing.assert_allclose(list(totals.values()), totals["unsorted"], rtol=1e-5)


def test_texts_that_see_each_other_are_noticed(monkeypatch):
    arguments, texts, evaluator, params = small()
    batches = packing_ways.batches_of(arguments, texts)
    for batch in batches["packed"]:
        batch["segment_ids"] = np.ones_like(batch["segment_ids"])
    # A tiny model without training hardly looks at other texts.
    monkeypatch.setattr(packing_ways, "TOLERANCE", 1e-7)
    with pytest.raises(ValueError, match="logits in packed rows differ by"):
        packing_ways.largest_difference(evaluator, params, batches, 14)


def test_batches_by_length_stay_within_the_tokens_of_a_packed_batch():
    arguments, texts, _, _ = small()
    batches = packing_ways.batches_of(arguments, texts)
    assert all(batch["mask"].size <= 2 * 32 for batch in batches["sorted"])
    for name in ("unsorted", "sorted"):
        sources = np.concatenate([batch["source"] for batch in batches[name]])
        assert sorted(sources) == list(range(14))
