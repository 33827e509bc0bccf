# SPDX-License-Identifier: Apache-2.0
"""What the encoder and its attention are given wrongly is one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.configs import DebertaConfig, EvaluatorConfig
from fulcra_jax.models import (
    Deberta,
    Evaluator,
    MaskedLm,
    apply_evaluator,
    attention,
    pooling,
    position_tables,
)

CONFIG = DebertaConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    position_buckets=4,
)
IDS = jnp.array([[5, 6, 7, 8]])
MASK = IDS > 0


@pytest.fixture(scope="module")
def params():
    init = Deberta(CONFIG).init
    return init(jax.random.key(0), IDS, MASK, deterministic=True)["params"]


@pytest.mark.parametrize(
    ("ids", "mask", "segments", "message"),
    [
        (None, MASK, None, "input_ids is None"),
        (IDS, None, None, "mask is None"),
        (IDS * 1.0, MASK, None, "input_ids is float32; it should be integers"),
        (IDS[:, :0], MASK[:, :0], None, r"shape \(1, 0\); there should be a row and a"),
        (IDS[:0], MASK[:0], None, r"shape \(0, 4\); there should be a row and a token"),
        (IDS, np.array([[0, 0, 0, -np.inf]]), None, "mask holds -inf; it should be bo"),
        (IDS, np.array([[1, 1, 0.3, 0]]), None, "mask holds 0.3; it should be bool"),
        (IDS, MASK, IDS + 0.5, "segment_ids is float32; it should be integers"),
        (
            IDS, MASK, np.array([[1, 1, 1, 1 + 2**32]]),
            r"segment_ids holds 4294967297; it should be in \[-2147483646, 2\^31\)",
        ),
        (
            # The number of padding: its tokens would attend to it.
            IDS, MASK, np.array([[1, 1, 1, -(2**31)]], np.int32),
            "segment_ids holds -2147483648; it should be in",
        ),
        (
            IDS, MASK, np.array([[1, 2, 2, 1]]),
            "segment_ids has 1 in several places of row 0; the tokens of a text should",
        ),
        (
            # Padding inside of a text parts it, too.
            IDS, np.array([[1, 0, 1, 1]]), np.array([[3, 0, 3, 3]], np.uint8),
            "segment_ids has 3 in several places of row 0",
        ),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_read(params, ids, mask, segments, message):
    with pytest.raises(ValueError, match=message):
        Deberta(CONFIG).apply(
            {"params": params}, ids, mask, segments, deterministic=True
        )
    with pytest.raises(ValueError, match=rf"MaskedLm: {message}|MaskedLm.*{message}"):
        MaskedLm(CONFIG, enhanced=True).init(
            jax.random.key(0), ids, mask, segments, deterministic=True
        )


def test_padding_may_have_the_number_of_a_text(params):
    for mask, segments in (
        (np.array([[1, 1, 1, 0]]), np.array([[1, 2, 2, 1]])),
        (np.array([[0, 1, 1, 0]]), np.array([[0, 1, 2, 0]])),
        (np.array([[1, 1, 0, 0]]), np.array([[5, -2, 5, -2]])),
    ):
        out = Deberta(CONFIG).apply(
            {"params": params}, IDS, mask, segments, deterministic=True
        )
        assert bool(jnp.isfinite(out).all())


class OfTorch:
    """What an array of torch shows: a shape, and a dtype that numpy does not know."""

    shape, dtype = (1, 4), "torch.int64"


def test_an_array_of_another_library_is_named(params):
    for ids, mask, name in ((OfTorch(), MASK, "input_ids"), (IDS, OfTorch(), "mask")):
        with pytest.raises(
            ValueError, match=rf"{name} is a .*OfTorch of torch.int64; "
        ):
            Deberta(CONFIG).apply({"params": params}, ids, mask, deterministic=True)


def test_a_configuration_of_another_class_is_named(params):
    whole = EvaluatorConfig(CONFIG)
    key, more = jax.random.key(0), {"deterministic": True}
    with pytest.raises(
        ValueError, match=r"Evaluator: config is of type DebertaConfig; "
    ):
        Evaluator(CONFIG).init(key, IDS, MASK, **more)
    for model in (Deberta(whole), MaskedLm(whole)):
        with pytest.raises(ValueError, match=r"EvaluatorConfig; .* config\.encoder"):
            model.init(key, IDS, MASK, **more)
    with pytest.raises(ValueError, match=r"tables: config is of type EvaluatorConfig"):
        position_tables(whole, params)


def test_masks_of_zeros_and_ones_of_any_kind_are_one_mask(params):
    def run(mask):
        apply = Deberta(CONFIG).apply
        return apply({"params": params}, IDS, mask, deterministic=True)

    mask = np.array([[1, 1, 1, 0]])
    want = run(mask.astype(bool))
    for kind in (np.int32, np.float32, np.uint8, jnp.bfloat16):
        np.testing.assert_array_equal(run(mask.astype(kind)), want)


def test_tables_of_another_configuration(params):
    good = position_tables(CONFIG, params)
    other = position_tables(
        CONFIG, {**params, "relative": {"embedding": jnp.ones((12, 16))}}
    )
    for tables, message in (
        ((), "tables are of 0 layers; expected what position_tables returns, of 2 lay"),
        (good[:1], "tables are of 1 layers"),
        (good * 2, "tables are of 4 layers"),
        ("no", "tables are str; expected"),
        (
            ((None, None),) * 2,
            "p2c table of layer 0 has shape None; this configuration",
        ),
        (other, r"layer 0 has shape \(2, 12, 8\); this configuration has \(2, 8, 8\)"),
        (((1,), (2,)), "tables of layer 0 are"),
    ):
        with pytest.raises(ValueError, match=message):
            Deberta(CONFIG).apply(
                {"params": params}, IDS, MASK, deterministic=True, tables=tables
            )
    with pytest.raises(ValueError, match="params hold encoder; expected"):
        position_tables(CONFIG, {"encoder": params})


def test_a_token_in_no_text_is_not_lost():
    evaluator = Evaluator(EvaluatorConfig(CONFIG))
    segments = jnp.array([[1, 1, 2, 2]])
    variables = evaluator.init(
        jax.random.key(0), IDS, MASK, segments, num_segments=2, deterministic=True
    )

    def run(segments, num_segments):
        return evaluator.apply(
            variables, IDS, MASK, segments, num_segments=num_segments,
            deterministic=True,
        )  # fmt: skip

    assert run(segments, 2).logits.shape[:2] == (1, 2)
    with pytest.raises(ValueError, match=r"segment_ids holds 2 at a token; with num_"):
        run(segments, 1)
    with pytest.raises(ValueError, match=r"holds 0 at a token; .* be in \[1, 2\]"):
        run(segments - 1, 2)
    for bad in (0, -1, "3", 1.0, True):
        with pytest.raises(ValueError, match=r"num_segments is .* an integer of at"):
            run(segments, bad)
    batch = {"input_ids": IDS, "mask": MASK, "token_type_ids": IDS * 0}
    batch |= {"segment_ids": segments}
    with pytest.raises(ValueError, match="but no first"):
        apply_evaluator(evaluator, variables["params"], batch)


def test_narrow_segment_ids_do_not_wrap_around():
    own = jnp.array([[1, 2]], jnp.uint8)
    member = pooling.members("a", jnp.ones((1, 2)), own, 300)
    assert member.sum() == 2


def attend(**options):
    x = jnp.zeros((2, 1, 3, 4))
    slots = attention.slot_of_distance(3, buckets=4, max_distance=8)
    options = {"slot_of_distance": slots, "scale": 1.0, **options}
    table = jnp.zeros((2, 8, 4))
    mask = options.pop("mask", jnp.ones((1, 3), bool))
    return attention.disentangled_attention(x, x, x, table, table, mask, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"slot_of_distance": None},
            "slot_of_distance is None, but there are position",
        ),
        ({"slot_of_distance": np.arange(5) + 4}, "holds 4 to 8; the position tables"),
        ({"slot_of_distance": np.arange(5) - 1}, "holds -1 to 3; the position tables"),
        ({"slot_of_distance": np.ones(5)}, "slot_of_distance is float64"),
        ({"head_chunk": 0}, "head_chunk is 0; it should be an integer of at least 1"),
        ({"head_chunk": -1}, "head_chunk is -1; it should be an integer"),
        ({"head_chunk": 2.0}, "head_chunk is 2.0; it should be an integer"),
        ({"block": -1}, "block is -1; it should be an integer of at least 1"),
        ({"block": 2.5}, "block is 2.5; it should be an integer"),
        ({"dropout_rate": 1}, r"the rate is 1; it should be in \[0, 1 - 2\^-16\]"),
        ({"dropout_rate": 0.9999999}, "the rate is 0.9999999"),
        ({"dropout_rate": -0.5}, "the rate is -0.5"),
        ({"dropout_rate": float("nan")}, "the rate is nan"),
        ({"mask": np.array([[0, 0, -1.0]])}, "mask holds -1; it should be bool"),
    ],
)
def test_attention(options, message):
    with pytest.raises(ValueError, match=message):
        attend(**options)


def test_dropout_and_empty_attention():
    for rate in (1.0, 1.5, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"attention\.dropout: the rate is"):
            attention.dropout(jnp.ones(3), rate, jax.random.key(0))
    x, mask = jnp.zeros((1, 0, 3, 4)), jnp.ones((0, 3), bool)
    with pytest.raises(ValueError, match="no axis should be empty"):
        attention.disentangled_attention(
            x, x, x, None, None, mask, slot_of_distance=None, scale=1.0
        )


def test_buckets_without_a_logarithm():
    for buckets, most in ((1, 8), (8, 5)):
        with pytest.raises(ValueError, match=f"buckets is {buckets} and max_distance"):
            attention.slot_of_distance(9, buckets=buckets, max_distance=most)
    for length in (0, 2.5, True):
        with pytest.raises(ValueError, match=r"length is .* an integer of at least 1"):
            attention.slot_of_distance(length, buckets=4, max_distance=8)
    with pytest.raises(ValueError, match="max_distance is 0"):
        attention.slot_of_distance(4, buckets=4, max_distance=0)
