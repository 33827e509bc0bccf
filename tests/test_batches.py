# SPDX-License-Identifier: Apache-2.0
"""Tokens and batches: two segments, the response first, a function of (seed, step)."""

import numpy as np
import pytest

from fulcra_jax.data import batches
from fulcra_jax.data.tokenizer import Encoded, PairTokenizer

TEXTS = [f"the quick brown fox number {i} jumps over the lazy dog" for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer.train(TEXTS, 400)


def examples(n, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 60, n)
    return batches.Examples(
        Encoded(
            [np.full(length, i + 1, np.int32) for i, length in enumerate(lengths)],
            [np.zeros(length, np.int32) for length in lengths],
        ),
        np.zeros((n, 10), np.float32),
        np.ones((n, 10), bool),
    )


def rows_at(data, step, size=8):
    batch = batches.train_batch(
        data, step, batch_size=size, seed=3, ladder=(16, 32, 64), pad_id=0
    )
    return batch, (batch["input_ids"][:, 0] - 1).tolist()


def test_a_pair_is_two_segments(tokenizer):
    encoded = tokenizer.encode(["the fox"], ["lazy dog"], max_length=64)
    tokens = tokenizer._tokenizer.convert_ids_to_tokens(encoded.ids[0].tolist())
    middle = tokens.index("[SEP]")
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert tokens.count("[SEP]") == 2
    want = [0] * (middle + 1) + [1] * (len(tokens) - middle - 1)
    assert encoded.types[0].tolist() == want


def test_truncation_keeps_the_response_first(tokenizer):
    whole = tokenizer.encode([TEXTS[0]], [TEXTS[1]], max_length=500)
    (ids,), (types,) = whole
    prompt, response = ids[types == 0][1:-1], ids[types == 1][:-1]
    for room in (len(response) + 5, len(response), 3, 1):
        (cut,), (segments,) = tokenizer.encode(
            [TEXTS[0]], [TEXTS[1]], max_length=room + 3
        )
        kept = min(room, len(response))
        assert len(cut) == room + 3
        np.testing.assert_array_equal(cut[segments == 1][:-1], response[:kept])
        np.testing.assert_array_equal(cut[segments == 0][1:-1], prompt[: room - kept])


def test_any_text_can_be_written(tokenizer):
    text = "Zürich \N{SNOWMAN} 中文 \x00 tab\t"
    (ids,), _ = tokenizer.encode([""], [text], max_length=500)
    tokens = tokenizer._tokenizer.convert_ids_to_tokens(ids.tolist())
    assert "[UNK]" not in tokens


def test_pieces_become_their_text_again(tokenizer):
    (pieces,) = tokenizer.pieces(["a plain sentence, with commas."])
    whole = [tokenizer.start_id, *pieces, tokenizer.end_id]
    assert tokenizer.text(whole) == "a plain sentence, with commas."
    assert {tokenizer.start_id, tokenizer.end_id} <= set(tokenizer.special_ids)


def test_special_words_in_a_text_do_not_end_its_segment(tokenizer):
    (ids,), (types,) = tokenizer.encode(
        ["a [SEP] b"], ["c [CLS] [SEP] d"], max_length=99
    )
    sep = tokenizer._tokenizer.sep_token_id
    assert (ids[types == 0] == sep).sum() == 1
    assert (ids[types == 1] == sep).sum() == 1
    assert (ids == tokenizer._tokenizer.cls_token_id).sum() == 1


def test_training_the_tokenizer_is_deterministic_and_saves(tokenizer, tmp_path):
    again = PairTokenizer.train(TEXTS, 400)
    again.save(tmp_path, max_length=77)
    loaded = PairTokenizer.load(tmp_path)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.max_length == 77
    assert tokenizer.max_length is None
    for one, two in zip(
        tokenizer.encode(TEXTS, TEXTS, max_length=50).ids,
        loaded.encode(TEXTS, TEXTS, max_length=50).ids,
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_bad_tokenizer_input_says_what_is_wrong(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        tokenizer.encode(["a", "b"], ["c"], max_length=9)
    with pytest.raises(ValueError, match="max_length is 3; it should be at least 4"):
        tokenizer.encode(["a"], ["c"], max_length=3)
    with pytest.raises(ValueError, match=r"responses\[1\] holds half a character"):
        tokenizer.encode(["a", "b"], ["c", "\ud800"], max_length=9)
    with pytest.raises(ValueError, match=r"prompts\[0\] is None; it should be a str"):
        tokenizer.encode([None], ["c"], max_length=9)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        PairTokenizer.load(tmp_path / "none")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="damaged: the tokenizer there cannot be"):
        PairTokenizer.load(tmp_path / "damaged")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        PairTokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="no text to train on"):
        PairTokenizer.train([], 400)
    with pytest.raises(ValueError, match=r"vocab_size is 10; it should be in \[261, "):
        PairTokenizer.train(["a"], 10)


def test_every_epoch_holds_every_row_once():
    data = examples(64)
    # 16 batches of 8 are one window: two epochs of 64 rows.
    seen = [row for step in range(16) for row in rows_at(data, step)[1]]
    assert np.bincount(seen, minlength=64).tolist() == [2] * 64


def test_a_batch_depends_on_seed_and_step_alone():
    data = examples(50)
    forward = [rows_at(data, step)[1] for step in range(40)]
    backward = [rows_at(data, step)[1] for step in reversed(range(40))][::-1]
    assert forward == backward
    assert forward[:20] != forward[20:]


def test_batches_are_padded_to_the_smallest_rung_and_masked():
    data = examples(50)
    lengths = np.array([len(ids) for ids in data.encoded.ids])
    for step in range(20):
        batch, rows = rows_at(data, step)
        longest = lengths[rows].max()
        assert batch["input_ids"].shape[1] == min(
            r for r in (16, 32, 64) if r >= longest
        )
        np.testing.assert_array_equal(batch["mask"].sum(1), lengths[rows])
        assert not batch["input_ids"][~batch["mask"]].any()


def test_rows_of_a_batch_are_of_similar_length():
    data = examples(400)
    lengths = np.array([len(ids) for ids in data.encoded.ids])
    padded = real = 0
    for step in range(48):
        batch, rows = rows_at(data, step)
        padded += batch["mask"].size
        real += lengths[rows].sum()
    # Padding every batch to the longest row of all would leave half of it empty.
    assert real / padded > 0.7


def test_few_rows_fill_a_batch_by_repeating():
    data = examples(3)
    found = [rows_at(data, step) for step in range(16)]
    assert {batch["input_ids"].shape[0] for batch, _ in found} == {8}
    assert {row for _, rows in found for row in rows} == {0, 1, 2}


def test_evaluation_sees_every_row_once_and_fills_with_masked_rows():
    data = examples(21)
    seen = []
    for rows, batch in batches.eval_batches(
        data, batch_size=8, ladder=(16, 32, 64), pad_id=0
    ):
        assert batch["mask"].shape[0] == 8
        assert not batch["where"][len(rows) :].any()
        assert not batch["mask"][len(rows) :].any()
        seen += rows.tolist()
    assert sorted(seen) == list(range(21))


def test_impossible_batches_say_why():
    with pytest.raises(ValueError, match="no labelled row to train on"):
        rows_at(examples(0), 0)
    data = examples(50)
    with pytest.raises(ValueError, match=r"tokens, but the ladder ends at 16"):
        batches.train_batch(data, 0, batch_size=8, seed=0, ladder=(16,), pad_id=0)


def test_dropped_tokens_follow_seed_and_step_and_spare_special_ones():
    batch, _ = rows_at(examples(50), 3)
    drop = lambda step, seed=0: batches.drop_tokens(
        batch, step, rate=0.3, seed=seed, mask_id=99, keep=[1, 2]
    )["input_ids"]
    ids = batch["input_ids"]
    dropped = drop(0) != ids
    np.testing.assert_array_equal(drop(0), drop(0))
    assert (drop(0) != drop(1)).any()
    assert (drop(0) != drop(0, seed=1)).any()
    assert (drop(0)[dropped] == 99).all()
    assert not dropped[~batch["mask"]].any()
    assert not dropped[np.isin(ids, [1, 2])].any()
    free = batch["mask"] & ~np.isin(ids, [1, 2])
    assert dropped[free].mean() == pytest.approx(0.3, abs=0.12)
    same = batches.drop_tokens(batch, 0, rate=0.0, seed=0, mask_id=99, keep=[])
    assert same is batch
