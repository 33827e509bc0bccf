# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus: format, balance, disjoint banks, the same rows anywhere."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from collections import Counter

import pytest

from fulcra_jax import values
from fulcra_jax.data import sample

BANK_FILE = pathlib.Path(sample.__file__).with_name("sample_phrases.toml")
BANK = tomllib.loads(BANK_FILE.read_text(encoding="utf-8"))
SPLITS = ("train", "dev", "test")
PAIRS = list(itertools.combinations(SPLITS, 2))


def normalised(phrase: str) -> str:
    return " ".join(re.findall(r"[\w{}]+", phrase.lower()))


def basic_of(item: str) -> str:
    row = values.ITEM_TO_BASIC[values.ITEMS.index(item)].tolist()
    return values.BASIC[row.index(1)]


def split_banks() -> dict[str, dict[str, list[str]]]:
    """Every bank that has a list per split, by a name for messages."""
    banks = {name: BANK[name] for name in ("things", "fillers", "openers", "closers")}
    banks |= {f"prompts.{kind}": bank for kind, bank in BANK["prompts"].items()}
    banks |= {f"slots.{slot}": bank for slot, bank in BANK["slots"].items()}
    for item, polarities in BANK["items"].items():
        banks |= {f"{item}.{name}": bank for name, bank in polarities.items()}
    return banks


def phrases(split: str) -> dict[str, set[tuple[str, str]]]:
    """Normalised activity -> the (item, polarity) it stands under."""
    found: dict[str, set[tuple[str, str]]] = {}
    for item, polarities in BANK["items"].items():
        for polarity, bank in polarities.items():
            for phrase in bank[split]:
                found.setdefault(normalised(phrase), set()).add((item, polarity))
    return found


def tokens(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", text.lower()))


def parts(record: dict) -> tuple[str, str]:
    prompt, response = record["dialogue"].split("\nBob: ")
    return prompt.removeprefix("Human: "), response


def labels(record: dict, field: str) -> list[tuple[str, int]]:
    pairs = [label.rsplit(": ", 1) for label in record[field]]
    return [(name, int(sign)) for name, sign in pairs]


# The banks.


def test_bank_is_small() -> None:
    assert BANK_FILE.stat().st_size < 150_000


def test_every_item_has_phrases_of_both_polarities_in_every_split() -> None:
    assert list(BANK["items"]) == list(values.ITEMS)
    for item, polarities in BANK["items"].items():
        assert set(polarities) == {"support", "oppose"}, item
        for polarity, train in (("support", 6), ("oppose", 5)):
            bank = polarities[polarity]
            assert set(bank) == set(SPLITS), item
            assert len(bank["train"]) >= train, (item, polarity)
            assert min(len(bank["dev"]), len(bank["test"])) >= 2, (item, polarity)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_activities_are_disjoint_across_splits(first: str, second: str) -> None:
    assert not phrases(first).keys() & phrases(second).keys()


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_split_bank_is_disjoint_across_splits(first: str, second: str) -> None:
    for name, bank in split_banks().items():
        left, right = ({normalised(text) for text in bank[s]} for s in (first, second))
        assert left, (name, first)
        assert right, (name, second)
        assert not left & right, name


def test_no_activity_stands_twice() -> None:
    for split in SPLITS:
        twice = {
            text: under for text, under in phrases(split).items() if len(under) > 1
        }
        assert not twice


def test_things_are_no_activities() -> None:
    activities = {text for split in SPLITS for text in phrases(split)}
    assert not activities & {normalised(t) for s in SPLITS for t in BANK["things"][s]}


@pytest.mark.parametrize(
    ("bank", "least"),
    [
        ("approve", 12),
        ("disapprove", 12),
        ("approve_negated", 6),
        ("disapprove_negated", 6),
        ("neutral", 6),
    ],
)
def test_frames_take_one_activity_and_are_distinct(bank: str, least: int) -> None:
    frames = BANK["frames"][bank]
    others = [f for name, fs in BANK["frames"].items() if name != bank for f in fs]
    assert len(set(frames)) == len(frames) >= least
    assert not set(frames) & set(others)
    assert all(frame.count("{x}") == 1 for frame in frames)


# The records.


@pytest.mark.parametrize("split", SPLITS)
def test_a_larger_n_extends_a_smaller_one(split: sample.Split) -> None:
    assert (
        sample.sample_records(3, 20, split) == sample.sample_records(3, 50, split)[:20]
    )


def test_another_process_gives_the_same_records() -> None:
    code = (
        "import json; from fulcra_jax.data import sample; "
        "print(json.dumps(sample.sample_records(5, 30, 'dev')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"PYTHONHASHSEED": "123"},
    )
    assert json.loads(done.stdout) == sample.sample_records(5, 30, "dev")


def test_seed_and_split_change_the_records() -> None:
    variants = [
        json.dumps(sample.sample_records(seed, 5, split))
        for seed in (0, 1)
        for split in SPLITS
    ]
    assert len(set(variants)) == 6


def test_dialogues_do_not_repeat() -> None:
    dialogues = [record["dialogue"] for record in sample.sample_records(0, 3000)]
    assert len(set(dialogues)) == 3000


@pytest.mark.parametrize("split", SPLITS)
def test_both_signs_of_every_value_occur(split: sample.Split) -> None:
    counts = Counter(
        label
        for record in sample.sample_records(0, 200, split)
        for label in labels(record, "value_types")
    )
    cells = [(name.lower(), sign) for name in values.BASIC for sign in (-1, 1)]
    assert min(counts[cell] for cell in cells) >= 5


def test_label_rates_are_those_of_the_card() -> None:
    records = sample.sample_records(0, 4000)
    found = [label for record in records for label in labels(record, "value_types")]
    negative = sum(sign < 0 for _, sign in found) / len(found)
    # Four standard errors of a proportion of 8000 labels are .02.
    assert 0.36 < negative < 0.40
    assert 1.9 < len(found) / len(records) < 2.2


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_consistent(split: sample.Split) -> None:
    for record in sample.sample_records(1, 400, split):
        items = labels(record, "value_items")
        types = labels(record, "value_types")
        assert {name for name, _ in items} <= set(values.ITEMS)
        assert {(basic_of(name).lower(), sign) for name, sign in items} == set(types)
        assert 1 <= len(types) <= 4
        assert len({name for name, _ in types}) == len(types), "both signs of a value"
        assert len({name for name, _ in items}) == len(items)


def test_the_labels_follow_from_the_sentence() -> None:
    # Every plain or negated sentence of the text, read back from the banks by itself.
    stance = {"approve": 1, "disapprove": -1}
    stance |= {"approve_negated": -1, "disapprove_negated": 1}
    meant = {
        normalised(frame.format(x=phrase)): (item, sign * side)
        for polarity, sign in (("support", 1), ("oppose", -1))
        for item in values.ITEMS
        for phrase in BANK["items"][item][polarity]["dev"]
        for name, side in stance.items()
        for frame in BANK["frames"][name]
    }
    read = 0
    for record in sample.sample_records(0, 300, "dev"):
        found = dict(labels(record, "value_items"))
        for sentence in re.split(r"\.\s*", re.sub('"[^"]*"', "", parts(record)[1])):
            if normalised(sentence) in meant:
                item, sign = meant[normalised(sentence)]
                assert found[item] == sign, record
                read += 1
    assert read > 150


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_well_formed(split: sample.Split) -> None:
    words = []
    for record in sample.sample_records(2, 400, split):
        prompt, response = parts(record)
        for text in (prompt, response):
            assert not re.search(r"[{}]|\bHuman:|\bBob:|  ", text)
            assert text[0].isupper()
        assert response[-1] in '."'
        assert record["query_source"] in ("synthetic-ordinary", "synthetic-adversarial")
        assert record["response_source"] == "phrase-bank"
        words.append(len(response.split()))
    assert min(words) >= 20
    assert sorted(words)[len(words) * 95 // 100] <= 110


def test_near_duplicate_prompts_do_not_straddle_splits() -> None:
    prompts = {
        split: {tokens(parts(r)[0]) for r in sample.sample_records(0, n, split)}
        for split, n in (("train", 1200), ("dev", 300), ("test", 300))
    }
    for first, second in PAIRS:
        for left, right in itertools.product(prompts[first], prompts[second]):
            assert len(left & right) < 0.7 * len(left | right), (left, right)


# Errors and files.


def test_no_records() -> None:
    assert sample.sample_records(0, 0) == []


def test_negative_n() -> None:
    with pytest.raises(ValueError, match=r"n is -1; it should be 0 or more"):
        sample.sample_records(0, -1)


def test_unknown_split() -> None:
    with pytest.raises(
        KeyError, match=r"split 'valid' is unknown; known are: train, dev"
    ):
        sample.sample_records(0, 1, "valid")  # pyright: ignore[reportArgumentType]


def test_write_sample(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "new"

    paths = sample.write_sample(folder, 4, 6, 3, 2)

    for split, n in zip(SPLITS, (6, 3, 2), strict=True):
        assert paths[split] == folder / f"sample.{split}.jsonl"
        lines = paths[split].read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == sample.sample_records(
            4, n, split
        )


def test_write_sample_overwrites_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sample.test.jsonl").write_text("mine")

    with pytest.raises(
        FileExistsError, match=r"sample\.test\.jsonl exists; give an empty"
    ):
        sample.write_sample(tmp_path, 0, 1, 1, 1)

    assert [path.name for path in tmp_path.iterdir()] == ["sample.test.jsonl"]
    assert (tmp_path / "sample.test.jsonl").read_text() == "mine"
