# SPDX-License-Identifier: Apache-2.0
"""Disentangled attention: the skew form, its gradient and the kernels against the
gather form, which autodiff differentiates."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fulcra_jax.models import accelerators, attention, position_bias

GOLDENS = pathlib.Path(__file__).parent / "goldens"
H, B, K = 4, 3, 8
SCALE = (3 * K) ** -0.5


def drawn(length, dtype=jnp.float32, buckets=32, max_distance=64):
    """q, k, v, pos_q, pos_k, the cotangent, the mask and the slots."""
    keys = jax.random.split(jax.random.key(length), 6)
    slots = attention.slot_of_distance(
        length, buckets=buckets, max_distance=max_distance
    )
    P = 2 * (buckets if buckets > 0 else max_distance)
    shapes = [(H, B, length, K)] * 3 + [(H, P, K)] * 2 + [(H, B, length, K)]
    arrays = [
        jax.random.normal(key, shape, dtype)
        for key, shape in zip(keys, shapes, strict=True)
    ]
    # Full, padded on the left, nothing but padding.
    begin = jnp.array([0, length // 2, length])[:, None]
    return arrays[:5], arrays[5], jnp.arange(length)[None, :] >= begin, slots


def values_and_gradients(inputs, cotangent, mask, slots, terms=(True, True), **options):
    used = [
        x if on else None for x, on in zip(inputs, (True,) * 3 + terms, strict=True)
    ]

    def f(*inputs):
        return attention.disentangled_attention(
            *inputs, mask, slot_of_distance=slots, scale=SCALE, **options
        )

    def both(*inputs):
        out, pull = jax.vjp(f, *inputs)
        return out, pull(cotangent)

    return jax.jit(both)(*used)


def assert_close(got, want, atol=5e-6):
    # Sums of some hundred float32 products of order one.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, want
    )


def segments(length):
    return jnp.broadcast_to(jnp.arange(length) * 3 // length, (B, length))


@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("length", [1, 7, 63, 64, 65])
def test_skew_equals_gather_forward_and_backward(length, terms):
    case = drawn(length)
    got = values_and_gradients(*case, terms, form="skew")
    assert_close(got, values_and_gradients(*case, terms, form="gather"))


@pytest.mark.parametrize("length", [513, 700])
@pytest.mark.parametrize("buckets", [32, -1])
def test_skew_equals_gather_beyond_the_largest_distance(length, buckets):
    case = drawn(length, buckets=buckets)
    got = values_and_gradients(*case)
    # Gradients of the tables sum over 700 x 700 pairs.
    assert_close(got, values_and_gradients(*case, form="gather"), atol=1e-4)


OPTIONS = {
    "one head at a time": {"head_chunk": 1},
    "all heads at once": {"head_chunk": H},
    "small blocks": {"block": 5},
    "padding sees keys": {"pad_rows": "keys"},
    "powers kept": {"keep": True, "head_chunk": 2},
    "powers computed again": {"keep": False},
    "segments": {"segment_ids": segments(20)},
    "dropout": {"dropout_rate": 0.3, "dropout_key": jax.random.key(5)},
    "dropout, powers kept": {
        "dropout_rate": 0.3, "dropout_key": jax.random.key(5), "keep": True,
    },
    "dropout, one head": {
        "dropout_rate": 0.3, "dropout_key": jax.random.key(5), "head_chunk": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_option_equals_gather_forward_and_backward(name):
    options, case = OPTIONS[name], drawn(20)
    plain = {
        k: v for k, v in options.items() if k not in ("head_chunk", "block", "keep")
    }
    got = values_and_gradients(*case, **options)
    assert_close(got, values_and_gradients(*case, form="gather", **plain))


@pytest.mark.parametrize("chunk", [1, 2, H])
def test_no_position_terms_is_plain_attention(chunk):
    (q, k, v, _, _), cotangent, mask, _ = drawn(20)

    def plain(q, k, v):
        score = jnp.einsum("hbtk,hbsk->hbts", q, k) * SCALE
        score = jnp.where(mask[:, None, :], score, -1e9)
        return jnp.einsum("hbts,hbsk->hbtk", jax.nn.softmax(score), v)

    want, pull = jax.vjp(plain, q, k, v)
    got = values_and_gradients(
        (q, k, v, None, None), cotangent, mask, None, (False, False),
        head_chunk=chunk, pad_rows="keys",
    )  # fmt: skip
    # The text of nothing but padding: its scores are constants, here as there.
    assert_close(got[0], want)
    assert_close(got[1][:3], pull(cotangent))


def test_the_slots_of_realistic_sizes_equal_the_original():
    with np.load(GOLDENS / "deberta_slots.npz") as arrays:
        for name, want in arrays.items():
            length, buckets, distance = map(int, name.split("_"))
            got = attention.relative_slots(
                length, buckets=buckets, max_distance=distance
            )
            np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("block", [1, 3, 8, 16])
def test_the_bias_does_not_depend_on_the_block(block):
    (q, k, _, pos_q, pos_k), _, _, slots = drawn(8)
    bias = attention.skew_bias(q, k, pos_q, pos_k, slot_of_distance=slots, block=block)
    want = attention.gather_bias(q, k, pos_q, pos_k, slot_of_distance=slots)
    np.testing.assert_allclose(bias, want, rtol=0, atol=1e-5)


def test_no_gather_has_a_batch_axis_and_nothing_is_scattered():
    inputs, cotangent, mask, slots = drawn(20)

    def loss(*inputs):
        out = attention.disentangled_attention(
            *inputs, mask, slot_of_distance=slots, scale=SCALE
        )
        return (out * cotangent).sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(*inputs).as_text()
    assert '"stablehlo.scatter"' not in text
    taken = [line for line in text.splitlines() if '"stablehlo.gather"' in line]
    windows = position_bias.positions.windows(slots, 20, descending=True)
    # Rows of the two position tables, a few heads at a time; none has an axis B.
    assert taken
    for line in taken:
        size = line.rsplit("-> tensor<", 1)[1].split("xf32")[0]
        assert tuple(map(int, size.split("x")))[1:] == (len(windows.slots), K)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("pad_rows", ["uniform", "keys"])
def test_huge_scores_and_empty_rows_stay_finite(dtype, pad_rows):
    inputs, cotangent, mask, slots = drawn(20, dtype)
    # Scores of up to 1e4.
    inputs = [inputs[0] * 3e3, *inputs[1:]]
    tree = values_and_gradients(inputs, cotangent, mask, slots, pad_rows=pad_rows)
    for leaf in jax.tree.leaves(tree):
        assert leaf.dtype == dtype
        assert bool(jnp.isfinite(leaf).all())


def test_padding_sees_everything_alike_or_the_keys():
    inputs, _, mask, slots = drawn(20)
    out = {
        pad_rows: attention.disentangled_attention(
            *inputs, mask, slot_of_distance=slots, scale=SCALE, pad_rows=pad_rows
        )
        for pad_rows in ("uniform", "keys")
    }
    mean = inputs[2].mean(2, keepdims=True)
    padding = np.asarray(~mask)
    want = jnp.broadcast_to(mean, out["uniform"].shape)
    np.testing.assert_allclose(
        out["uniform"][:, padding], want[:, padding], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        out["uniform"][:, ~padding], out["keys"][:, ~padding], rtol=0, atol=1e-6
    )
    assert float(jnp.abs(out["keys"] - out["uniform"])[:, 1, :10].max()) > 0.01


def test_bfloat16_is_near_float32():
    case = drawn(65)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case[:2])
    want = values_and_gradients(*case)
    got = values_and_gradients(*half, *case[2:])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        error = np.abs(np.asarray(a, np.float32) - b)
        # 8 bits, and sums over up to 65 x 3 pairs.
        assert error.max() / np.abs(b).max() < 0.03


def test_dropped_probabilities_are_gone_and_the_rest_keeps_the_mean():
    (q, k, v, _, _), _, mask, _ = drawn(40)
    ones = jnp.ones_like(v)
    options = {"slot_of_distance": None, "scale": SCALE, "dropout_rate": 0.25}
    out = jnp.stack(
        [
            attention.disentangled_attention(
                q,
                k,
                ones,
                None,
                None,
                mask,
                dropout_key=jax.random.key(seed),
                **options,
            )
            for seed in range(20)
        ]
    )
    # The probabilities of a row sum to one; with a quarter dropped, to one on average.
    assert abs(float(out.mean()) - 1.0) < 0.01
    assert float(out.std()) > 0.02


def test_dropout_keeps_the_mean_and_the_rate():
    x = attention.dropout(jnp.ones((200, 100)), 0.25, jax.random.key(0))
    # 20000 draws: the standard error of the share is 0.003.
    assert abs(float((x == 0).mean()) - 0.25) < 0.015
    assert abs(float(x.mean()) - 1.0) < 0.02


@pytest.mark.parametrize("packed", [False, True])
def test_the_call_of_cudnn_equals_gather(packed, monkeypatch):
    # The same call, answered by jax's own attention: there is no GPU in a test.
    call = accelerators.cudnn_attention
    monkeypatch.setattr(
        accelerators,
        "cudnn_attention",
        lambda *args: call(*args, implementation="xla"),
    )
    case = drawn(20)
    ids = {"segment_ids": segments(20)} if packed else {}
    got = values_and_gradients(*case, form="cudnn", **ids)
    assert_close(got, values_and_gradients(*case, form="gather", **ids))


@pytest.mark.parametrize("packed", [False, True])
def test_the_flash_kernel_of_jax_equals_gather(packed):
    pltpu = pytest.importorskip("jax.experimental.pallas.tpu")
    inputs, cotangent, mask, slots = drawn(130)
    inputs = [x[:1] for x in inputs]
    ids = {"segment_ids": segments(130)} if packed else {}
    # What stands at padding has no meaning there, so nothing flows back from it.
    cotangent = jnp.where(mask[None, :, :, None], cotangent[:1], 0)
    want = values_and_gradients(inputs, cotangent, mask, slots, form="gather", **ids)
    with pltpu.force_tpu_interpret_mode():
        got = values_and_gradients(inputs, cotangent, mask, slots, form="pallas", **ids)
    assert_close(got, want, atol=2e-5)


FUSED = {
    "three tiles": (drawn(300), {}),
    "padding sees keys": (drawn(130), {"pad_rows": "keys"}),
    "segments": (drawn(260), {"segment_ids": segments(260)}),
    "one tile": (drawn(7), {}),
    "content to position": (drawn(130), {"terms": (False, True)}),
    "position to content": (drawn(130), {"terms": (True, False)}),
    "neither": (drawn(130), {"terms": (False, False)}),
    "beyond the largest distance": (drawn(200, buckets=-1), {}),
}


@pytest.mark.parametrize("name", list(FUSED))
def test_the_fused_kernel_equals_gather(name):
    pltpu = pytest.importorskip("jax.experimental.pallas.tpu")
    (inputs, cotangent, mask, slots), options = FUSED[name]
    few = ([x[:2] for x in inputs], cotangent[:2], mask, slots)
    want = values_and_gradients(*few, form="gather", **options)
    with pltpu.force_tpu_interpret_mode():
        got = values_and_gradients(*few, form="fused", **options)
    # The text of nothing but padding is among them, and compared too.
    assert_close(got, want, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_fused_kernel_can_be_lowered_for_a_tpu(dtype):
    (q, k, v, pos_q, pos_k), _, mask, slots = drawn(300, dtype)

    def attend(q, k, v):
        return attention.disentangled_attention(
            q, k, v, pos_q, pos_k, mask,
            slot_of_distance=slots, scale=SCALE, form="fused",
        )  # fmt: skip

    text = jax.jit(attend).trace(q, k, v).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 1
    # No scores of size [T, T] are left to XLA; who may attend to whom is compared once.
    for length in (300, 384):
        assert not re.search(rf"{length}x{length}xb?f", text)


@pytest.mark.parametrize("form", ["pallas", "fused"])
def test_a_kernel_for_tpu_says_so_on_a_cpu(form):
    inputs, _, mask, slots = drawn(20)

    def f(q):
        return attention.disentangled_attention(
            q, *inputs[1:], mask, slot_of_distance=slots, scale=SCALE, form=form
        ).sum()

    for call in (f, jax.grad(f)):
        with pytest.raises(RuntimeError, match=f"'{form}' is a kernel for TPU, which"):
            call(inputs[0])


def test_bad_inputs_are_refused_while_tracing():
    x = jnp.zeros((1, 1, 3, 2))
    mask = jnp.ones((1, 3), bool)

    def attend(**options):
        options = {"slot_of_distance": None, "scale": 1.0, **options}
        return attention.disentangled_attention(x, x, x, None, None, mask, **options)

    with pytest.raises(ValueError, match="has 3 entries, but q has T=3, which needs 5"):
        attention.skew_bias(x, x, None, None, slot_of_distance=np.arange(3))
    with pytest.raises(ValueError, match="has 4 entries, but q has T=3, which needs 5"):
        attend(slot_of_distance=np.arange(4))
    with pytest.raises(KeyError, match="form 'roll' is unknown; known are: skew, gath"):
        attend(form="roll")
    with pytest.raises(KeyError, match="pad_rows 'none' is unknown; known are: unifor"):
        attend(pad_rows="none")
    with pytest.raises(
        ValueError, match="head_chunk is 2; it should be a divisor of H"
    ):
        attend(head_chunk=2)
    options = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    with pytest.raises(
        ValueError, match="form 'cudnn' knows no dropout, but dropout_r"
    ):
        attend(form="cudnn", **options)
