# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy_lm import decoder as toy
from experiments.toy_lm import sampling, texts
from fulcra_jax.data.tokenizer import PairTokenizer

CONFIG = toy.DecoderConfig(vocab_size=23, width=16, layers=2, heads=2, mlp=32)
END, PAD = 2, 0


def drawn(length=7):
    params = toy.init(CONFIG, 0)
    # Far from uniform, so that a mistake shows.
    params = jax.tree.map(lambda x: 3.0 * x, params)
    prompts = jnp.asarray(np.random.default_rng(0).integers(3, 23, (5, 6)))
    where = jnp.arange(6)[None] >= jnp.array([[0], [1], [2], [4], [5]])
    banned = jnp.zeros(23, bool).at[jnp.array([PAD, 1])].set(True)
    found = sampling.draw(
        CONFIG, params, jax.random.key(1), prompts, where, banned,
        length=length, end_id=END, pad_id=PAD,
    )  # fmt: skip
    return params, prompts, where, banned, found


def test_the_cache_gives_what_the_whole_sequence_gives():
    params, prompts, where, banned, found = drawn()
    logits = sampling.response_logits(
        CONFIG, params, prompts, where, found.tokens, found.where, banned
    )
    again = sampling.log_probs(logits, found.tokens, found.where)
    np.testing.assert_allclose(found.log_prob, again, atol=2e-5)
    assert float(found.log_prob.sum()) < -5.0


def test_padding_on_the_left_changes_nothing():
    params, prompts, where, banned, found = drawn()
    wide = [jnp.pad(x, ((0, 0), (3, 0))) for x in (prompts, where)]
    rest = (found.tokens, found.where, banned)
    narrow = sampling.response_logits(CONFIG, params, prompts, where, *rest)
    padded = sampling.response_logits(CONFIG, params, *wide, *rest)
    mask = found.where[..., None] & ~banned[None, None]
    np.testing.assert_allclose(
        jnp.where(mask, padded, 0.0), jnp.where(mask, narrow, 0.0), atol=2e-5
    )


def test_nothing_follows_the_end_and_banned_tokens_never_come():
    *_, banned, found = drawn(length=40)
    assert not bool(banned[jnp.where(found.where, found.tokens, END)].any())
    ended = (found.tokens == END).any(1)
    assert bool(ended.any())
    for tokens, where in zip(found.tokens, found.where, strict=True):
        size = int(where.sum())
        assert where[:size].all()
        if size < 40:
            assert tokens[size - 1] == END
        assert (tokens[: size - 1] != END).all()


def test_texts_become_tokens_and_texts_again():
    pairs = texts.dialogues(0, 40, "train")
    tokenizer = PairTokenizer.train([text for pair in pairs for text in pair], 400)
    codec = texts.Codec(tokenizer, texts.Lengths(prompt=12, response=60))
    prompts, responses = zip(*pairs[:8], strict=True)
    ids, where = codec.encode_prompts(prompts)
    assert ids.shape == where.shape == (8, 12)
    assert (ids[:, -1] == codec.end_id).all()
    tokens, present = codec.encode_responses(responses)
    assert (tokens[np.arange(8), present.sum(1) - 1] == codec.end_id).all()
    for text, response in zip(codec.decode(tokens, present), responses, strict=True):
        assert response.lower().replace("\n", " ").split()[: len(text.split())] == (
            text.split()
        )


def test_prompts_are_different_and_of_their_split():
    found = texts.prompts(0, 30, "dev")
    assert len(set(found)) == 30
    assert not set(found) & set(texts.prompts(0, 30, "train"))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width is 6; it should be a multiple"):
        toy.DecoderConfig(width=6, heads=2)
    with pytest.raises(ValueError, match="layers is 0"):
        toy.DecoderConfig(layers=0)
