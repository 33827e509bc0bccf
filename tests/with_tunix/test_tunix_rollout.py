# SPDX-License-Identifier: Apache-2.0
"""How a policy of tunix answers."""

import jax.numpy as jnp
import numpy as np
import pytest
from parts import LENGTHS, policy, prompts_of


@pytest.fixture(scope="module")
def drawn(adapter, tokenizer):
    """Two calls of one rollout, of a policy that ends often."""
    model = policy(adapter, tokenizer)
    table = model.embedder.input_embedding
    # The end and padding are as likely as a tenth of all other tokens together.
    table[...] = table[...].at[tokenizer.eos_id()].set(0.0)
    sampling = adapter.Sampling(16, 24, temperature=2.0)
    config = sampling.config()
    rollout = adapter.Rollout(model, tokenizer, None, config)
    prompts = list(prompts_of(0, 16))
    return rollout, [rollout.generate(prompts, config) for _ in range(2)]


def test_every_call_draws_anew_and_a_resumed_one_the_same(adapter, tokenizer, drawn):
    rollout, (first, second) = drawn
    assert first.text != second.text
    config = adapter.Sampling(16, 24, temperature=2.0).config()
    again = adapter.Rollout(rollout.model(), tokenizer, None, config)
    again.calls = 1
    assert again.generate(list(prompts_of(0, 16)), config).text == second.text


def test_an_answer_keeps_its_end_and_holds_no_padding(tokenizer, drawn):
    _, outputs = drawn
    rows = [row for output in outputs for row in output.tokens]
    short = [row for row in rows if len(row) < 24]
    assert short
    for row in rows:
        inside = row[:-1] if len(row) < 24 else row[:23]
        assert tokenizer.eos_id() not in inside
        assert tokenizer.pad_id() not in row
    assert all(row[-1] == tokenizer.eos_id() for row in short)


def test_old_log_probabilities_are_those_it_drew_with(tokenizer, drawn):
    rollout, (output, _) = drawn
    row = output.tokens[0]
    prompt = output.left_padded_prompt_tokens[0]
    found = rollout.get_per_token_logps(
        jnp.asarray(prompt)[None], jnp.asarray(row)[None]
    )
    ids = np.concatenate([prompt[prompt != tokenizer.pad_id()], row])
    logits, _ = rollout.model()(
        jnp.asarray(ids)[None],
        jnp.arange(len(ids))[None],
        None,
        jnp.tril(jnp.ones((1, len(ids), len(ids)), bool)),
    )
    scaled = np.asarray(logits[0], np.float64)[-len(row) - 1 : -1] / 2.0
    want = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    np.testing.assert_allclose(found[0], want[np.arange(len(row)), row], atol=1e-4)


def test_an_answer_stops_at_the_first_of_several_ends(adapter, tokenizer, drawn):
    rollout, (alone, _) = drawn
    other = int(alone.tokens[0][0])  # one that it draws
    ends = (tokenizer.eos_id(), other)
    config = adapter.Sampling(16, 24, temperature=2.0, ends=ends).config()
    again = adapter.Rollout(rollout.model(), tokenizer, None, config)
    found = again.generate(list(prompts_of(0, 16)), config)
    # The same noise: each answer is the one from before, up to its first end.
    for row, whole in zip(found.tokens, alone.tokens, strict=True):
        stops = [place for place, x in enumerate(whole) if x in ends]
        np.testing.assert_array_equal(row, whole[: stops[0] + 1] if stops else whole)
    last = {int(row[-1]) for row in found.tokens if len(row) < 24}
    assert last == set(ends)
    assert found.text[0] == ""  # it ended at once; an end is no text


def test_the_kl_of_an_answer_by_hand(adapter, tokenizer, drawn):
    rollout, (output, _) = drawn
    model, other = rollout.model(), policy(adapter, tokenizer, sharp=1.5)
    pad = tokenizer.pad_id()
    answers = np.full((16, 24), pad)
    for place, row in enumerate(output.tokens):
        answers[place, : len(row)] = row
    found = adapter.answer_kl(
        model,
        other,
        jnp.asarray(output.left_padded_prompt_tokens),
        jnp.asarray(answers),
        pad_id=pad,
        end_id=tokenizer.eos_id(),
        temperature=2.0,
    )
    lengths = {len(row) for row in output.tokens}
    assert len(lengths) > 1
    for place in range(3):
        row, prompt = output.tokens[place], output.left_padded_prompt_tokens[place]
        ids = np.concatenate([prompt[prompt != pad], row])
        log = []
        for net in (model, other):
            logits, _ = net(
                jnp.asarray(ids)[None],
                jnp.arange(len(ids))[None],
                None,
                jnp.tril(jnp.ones((1, len(ids), len(ids)), bool)),
            )
            x = np.asarray(logits[0], np.float64)[-len(row) - 1 : -1] / 2.0
            x = np.delete(x, pad, 1)  # never drawn
            log.append(x - np.log(np.exp(x).sum(-1, keepdims=True)))
        want = (np.exp(log[0]) * (log[0] - log[1])).sum()
        assert want > 1e-3
        assert found[place] == pytest.approx(want, rel=1e-3)


def test_answers_come_with_kl_and_tokens_however_many_are_asked_for(adapter, tokenizer):
    model, other = policy(adapter, tokenizer), policy(adapter, tokenizer, sharp=2.0)
    some, sampling = list(prompts_of(0, 6)), adapter.Sampling(**LENGTHS)
    whole = adapter.answer(model, tokenizer, some, sampling, reference=other, batch=4)
    assert len(whole.texts) == len(whole.tokens) == len(whole.kl) == 6
    assert (whole.kl > 0.0).all()
    assert ((whole.tokens >= 1) & (whole.tokens <= 10)).all()
    part = adapter.answer(model, tokenizer, some[:4], sampling, batch=4)
    assert part.texts == whole.texts[:4]
    assert not part.kl.any()
