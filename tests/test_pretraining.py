# SPDX-License-Identifier: Apache-2.0
"""Pretraining heads: an oracle in numpy for what no library has, and their files."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from test_convert import flat, random_params, rewrite
from test_deberta import ATOL, fresh, run

from fulcra_jax import convert
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import tables
from fulcra_jax.models import Deberta, MaskedLm, MaskedLmHead, ReplacedTokenHead

SIZES = {
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 11,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_biased_input": False,
}
V3 = SIZES | {
    "model_type": "deberta-v2",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 16,  # distances up to 8 keep slots of their own
}
V1 = SIZES | {"model_type": "deberta"}
BERT = {
    key: SIZES[key]
    for key in SIZES
    if key not in ("relative_attention", "pos_att_type", "position_biased_input")
} | {"model_type": "bert"}


def inputs(length=9):
    ids = jax.random.randint(jax.random.key(1), (2, length), 1, 30)
    return ids, jnp.arange(length)[None] < jnp.array([[length], [length - 3]])


def norm(x, leaf, eps):
    mean = x.mean(-1, keepdims=True)
    spread = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(spread + eps) * leaf["scale"] + leaf["bias"]


def dense(x, leaf):
    return x @ leaf["kernel"] + leaf.get("bias", 0.0)


gelu = np.vectorize(lambda x: x * 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))))


def last_layer(config, params, below, asking, tokens):
    """One text through the last layer, pair of tokens by pair; float64."""
    leaves = params["encoder"]["layer_1"]
    parts, eps = leaves["attention"], config.layer_norm_eps
    rows = params["encoder"]["relative"]["embedding"]
    if "relative_norm" in params["encoder"]:
        rows = norm(rows, params["encoder"]["relative_norm"], eps)
    pos_q = dense(rows, parts.get("pos_query", parts["query"]))
    pos_k = dense(rows, parts.get("pos_key", parts["key"]))
    q, k = dense(asking, parts["query"]), dense(below, parts["key"])
    v = dense(below, parts["value"])
    T, D = below.shape
    K = D // config.num_attention_heads
    out = np.zeros((T, D))
    for head in range(config.num_attention_heads):
        part = slice(head * K, (head + 1) * K)
        for i in range(T):
            score = np.full(T, -np.inf)
            for j in range(tokens):
                row = len(rows) // 2 + i - j
                score[j] = q[i, part] @ k[j, part]
                score[j] += q[i, part] @ pos_k[row, part]
                score[j] += k[j, part] @ pos_q[row, part]
            chance = np.exp(score / math.sqrt(3 * K) - score.max() / math.sqrt(3 * K))
            out[i, part] = chance @ v[:, part] / chance.sum()
    x = norm(asking + dense(out, parts["output"]), leaves["attention_norm"], eps)
    y = dense(gelu(dense(x, leaves["up"])), leaves["down"])
    return norm(x + y, leaves["mlp_norm"], eps)


@pytest.mark.parametrize("entries", [V3, V1], ids=["v3", "v1"])
def test_the_enhanced_mask_decoder_equals_its_definition(entries):
    config = DebertaConfig.from_hf(entries)
    ids, mask = inputs()
    model = MaskedLm(config, enhanced=True)
    params = fresh(model, ids, mask)
    got = run(model, params, ids, mask)
    encoder = Deberta(config)
    states = run(encoder, params["encoder"], ids, mask, all_states=True)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    places = wide["mask_decoder"]["position"]["embedding"]
    head = wide["masked_lm"]
    for text, tokens in enumerate((9, 6)):
        below = np.asarray(states[1][text], np.float64)
        x = below + places[:9]
        for _ in range(2):
            x = last_layer(config, wide, below, x, tokens)
        x = norm(gelu(dense(x, head["dense"])), head["norm"], config.layer_norm_eps)
        words = wide["encoder"]["embeddings"]["word"]["embedding"]
        want = x @ words.T + head["bias"]
        np.testing.assert_allclose(got[text, :tokens], want[:tokens], rtol=0, atol=ATOL)
    with pytest.raises(ValueError, match=r"hold a mask_decoder, but enhanced is False"):
        run(MaskedLm(config), params, ids, mask)
    del params["mask_decoder"]
    plain = run(MaskedLm(config), params, ids, mask)
    assert float(abs(plain - got)[0].max()) > 0.1


def test_the_mask_decoder_reads_packed_texts_as_single_ones():
    config = DebertaConfig.from_hf(V3)
    ids, mask = inputs()
    model = MaskedLm(config, enhanced=True)
    params = fresh(model, ids, mask)
    packed = jnp.concatenate([ids[0, :8], ids[1, :6]])[None]
    segments = jnp.array([[1] * 8 + [2] * 6])
    got = run(model, params, packed, segments > 0, segments)
    for start, end in ((0, 8), (8, 14)):
        text = packed[:, start:end]
        want = run(model, params, text, jnp.ones_like(text))
        np.testing.assert_allclose(got[:, start:end], want, rtol=0, atol=ATOL)


def test_the_replaced_token_head_equals_its_definition():
    config = DebertaConfig.from_hf(V3)
    hidden = jax.random.normal(jax.random.key(0), (2, 5, 12))
    head = ReplacedTokenHead(config)
    key = jax.random.key(1)
    shapes = jax.eval_shape(lambda: head.init(key, hidden))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    got = jax.jit(head.apply)({"params": jax.tree.map(jnp.float32, params)}, hidden)
    x = np.asarray(hidden, np.float64)
    x = norm(x[:, :1] + x, params["norm"], config.layer_norm_eps)
    want = dense(gelu(dense(x, params["dense"])), params["classifier"])[..., 0]
    assert got.shape == (2, 5)
    np.testing.assert_allclose(got, want, rtol=0, atol=ATOL)


def test_the_replaced_token_head_reads_packed_texts_as_single_ones():
    head = ReplacedTokenHead(DebertaConfig.from_hf(V3))
    hidden = jax.random.normal(jax.random.key(0), (2, 9, 12))
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1, 2, 2, 3, 3, 3, 3, 3, 3]])
    params = jax.jit(head.init)(jax.random.key(1), hidden)
    got = jax.jit(head.apply)(params, hidden, segments)
    for row, start, end in ((0, 0, 3), (0, 3, 7), (1, 0, 1), (1, 1, 3), (1, 3, 9)):
        want = head.apply(params, hidden[row : row + 1, start:end])
        np.testing.assert_allclose(got[row, start:end], want[0], rtol=0, atol=1e-6)


def test_the_logits_of_chosen_tokens_are_those_of_all():
    config = DebertaConfig.from_hf(BERT)
    hidden = jax.random.normal(jax.random.key(0), (2, 5, 12))
    words = jax.random.normal(jax.random.key(1), (30, 12))
    head = MaskedLmHead(config)
    params = head.init(jax.random.key(2), hidden, words)
    logits = head.apply(params, hidden, words)
    assert logits.shape == (2, 5, 30)
    chosen = head.apply(params, hidden[1, 2:4], words)
    np.testing.assert_allclose(chosen, logits[1, 2:4], rtol=0, atol=1e-6)
    half = MaskedLmHead(config, dtype=jnp.bfloat16).apply(params, hidden, words)
    assert half.dtype == jnp.float32


def head_tensors(layout, config, seed=3):
    """The tensors of a head, by the names of a file, and our leaves of them."""
    rng = np.random.default_rng(seed)
    D, W = config.hidden_size, config.vocab_size
    lm = "lm_predictions.lm_head."
    shapes = {
        "microsoft": {
            f"{lm}dense.weight": (D, D),
            f"{lm}dense.bias": (D,),
            f"{lm}LayerNorm.weight": (D,),
            f"{lm}LayerNorm.bias": (D,),
            f"{lm}bias": (W,),
        },
        "legacy": {
            "cls.predictions.transform.dense.weight": (D, D),
            "cls.predictions.transform.dense.bias": (D,),
            "cls.predictions.transform.LayerNorm.gamma": (D,),
            "cls.predictions.transform.LayerNorm.beta": (D,),
            "cls.predictions.bias": (W,),
        },
        "replaced": {
            "mask_predictions.dense.weight": (D, D),
            "mask_predictions.dense.bias": (D,),
            "mask_predictions.LayerNorm.weight": (D,),
            "mask_predictions.LayerNorm.bias": (D,),
            "mask_predictions.classifier.weight": (1, D),
            "mask_predictions.classifier.bias": (1,),
        },
        "positions": {"deberta.embeddings.position_embeddings.weight": (11, D)},
    }[layout]
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def saved(folder, entries, *layouts, **more):
    """A checkpoint with these heads: its configuration, encoder and head tensors."""
    config = DebertaConfig.from_hf(entries)
    params = random_params(config)
    convert.save(folder, config, params)
    heads = {}
    for layout in layouts:
        heads |= head_tensors(layout, config)
    rewrite(folder, lambda t: t | heads | more)
    return config, params, heads


def test_all_heads_of_a_deberta_are_found(tmp_path):
    config, params, heads = saved(
        tmp_path, V3, "microsoft", "positions", "replaced", "legacy"
    )
    read, tree = convert.load_pretraining(tmp_path)
    assert read == config
    assert set(tree) == {"encoder", "masked_lm", "mask_decoder", "replaced_token"}
    for path, leaf in flat(params):
        np.testing.assert_array_equal(dict(flat(tree["encoder"]))[path], leaf)
    lm, rtd = tree["masked_lm"], tree["replaced_token"]
    of_lm = "lm_predictions.lm_head."
    np.testing.assert_array_equal(
        lm["dense"]["kernel"], heads[f"{of_lm}dense.weight"].T
    )
    np.testing.assert_array_equal(
        lm["norm"]["scale"], heads[f"{of_lm}LayerNorm.weight"]
    )
    np.testing.assert_array_equal(lm["bias"], heads[f"{of_lm}bias"])
    classifier = heads["mask_predictions.classifier.weight"].T
    np.testing.assert_array_equal(rtd["classifier"]["kernel"], classifier)
    places = heads["deberta.embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(tree["mask_decoder"]["position"]["embedding"], places)
    # What is found is what the models want.
    ids, mask = inputs()
    for model, names in (
        (MaskedLm(config, enhanced=True), ("encoder", "masked_lm", "mask_decoder")),
        (MaskedLm(config), ("encoder", "masked_lm")),
    ):
        want = jax.tree.map(jnp.shape, fresh(model, ids, mask))
        got = jax.tree.map(np.shape, {name: tree[name] for name in names})
        assert got == want
    head = ReplacedTokenHead(config)
    hidden = jnp.zeros((1, 2, 12))
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), hidden))["params"]
    assert jax.tree.map(np.shape, rtd) == jax.tree.map(lambda x: x.shape, shapes)
    # The encoder alone reads the same file.
    assert convert.load_encoder(tmp_path)[0] == config


def test_the_old_layout_is_that_of_bert(tmp_path):
    entries = BERT
    config = DebertaConfig.from_hf(entries)
    convert.save(tmp_path, config, random_params(config))
    heads = head_tensors("legacy", config)

    def add(tensors):
        tied = {
            "cls.predictions.decoder.weight": tensors[
                "embeddings.word_embeddings.weight"
            ],
            "cls.predictions.decoder.bias": heads["cls.predictions.bias"],
            "cls.seq_relationship.weight": np.zeros((2, 12), np.float32),
            "pooler.dense.weight": np.zeros((12, 12), np.float32),
        }
        return tensors | heads | tied

    rewrite(tmp_path, add)
    _, tree = convert.load_pretraining(tmp_path)
    assert set(tree) == {"encoder", "masked_lm"}
    scale = heads["cls.predictions.transform.LayerNorm.gamma"]
    np.testing.assert_array_equal(tree["masked_lm"]["norm"]["scale"], scale)


def test_the_originals_spelling_is_read(tmp_path):
    _, _, heads = saved(tmp_path, V3, "replaced")
    rewrite(
        tmp_path,
        lambda t: {k.replace("classifier.", "classifer."): x for k, x in t.items()},
    )
    assert "mask_predictions.classifer.bias" in safetensors.numpy.load_file(
        tmp_path / "model.safetensors"
    )
    _, tree = convert.load_pretraining(tmp_path)
    got = tree["replaced_token"]["classifier"]["bias"]
    np.testing.assert_array_equal(got, heads["mask_predictions.classifier.bias"])


def test_a_position_table_that_nothing_decodes_by_is_left_out(tmp_path):
    saved(tmp_path / "rtd", V3, "replaced", "positions")
    _, tree = convert.load_pretraining(tmp_path / "rtd")
    assert set(tree) == {"encoder", "replaced_token"}
    saved(tmp_path / "legacy", V1, "legacy", "positions")
    _, tree = convert.load_pretraining(tmp_path / "legacy")
    assert set(tree) == {"encoder", "masked_lm"}
    saved(tmp_path / "biased", V1 | {"position_biased_input": True}, "microsoft")
    _, tree = convert.load_pretraining(tmp_path / "biased")
    assert set(tree) == {"encoder", "masked_lm"}


def test_files_of_heads_that_do_not_fit_are_named(tmp_path):
    saved(tmp_path / "none", V3, "positions")
    with pytest.raises(ValueError, match=r"holds no pretraining head, that is nothing"):
        convert.load_pretraining(tmp_path / "none")
    saved(tmp_path / "half", V3, "replaced")
    name = "mask_predictions.dense.bias"
    rewrite(tmp_path / "half", lambda t: {k: x for k, x in t.items() if k != name})
    with pytest.raises(
        ValueError, match=r"lacks mask_predictions\.dense\.bias \(12,\)"
    ):
        convert.load_pretraining(tmp_path / "half")
    extra = {"lm_predictions.lm_head.extra": np.zeros(2, np.float32)}
    saved(tmp_path / "extra", V3, "microsoft", **extra)
    with pytest.raises(
        ValueError, match=r"no place for lm_predictions\.lm_head\.extra"
    ):
        convert.load_pretraining(tmp_path / "extra")
    other = {"cls.predictions.decoder.weight": np.ones((30, 12), np.float32)}
    saved(tmp_path / "untied", BERT, "legacy", **other)
    with pytest.raises(ValueError, match=r"decoder\.weight that differs from embedd"):
        convert.load_pretraining(tmp_path / "untied")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        convert.load_pretraining(tmp_path / "nowhere")
    file = tmp_path / "half" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        convert.load_pretraining(tmp_path / "half")
    (tmp_path / "half" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type is 'gpt2'"):
        convert.load_pretraining(tmp_path / "half")


BAD_DECODERS = [
    (BERT, "needs position_biased_input False, but it is True"),
    (V3 | {"num_hidden_layers": 1}, "needs two layers; num_hidden_layers is 1"),
    (V3 | {"embedding_size": 8}, "embedding_size is 8 and hidden_size 12"),
]


@pytest.mark.parametrize(("entries", "words"), BAD_DECODERS)
def test_an_encoder_that_cannot_decode_is_refused(entries, words):
    model = MaskedLm(DebertaConfig.from_hf(entries), enhanced=True)
    ids, mask = inputs()
    with pytest.raises(ValueError, match=words):
        model.init(jax.random.key(0), ids, mask, deterministic=True)


def test_bad_shapes_of_heads_are_named():
    config = DebertaConfig.from_hf(V3)
    hidden, words = jnp.zeros((1, 2, 12)), jnp.zeros((29, 12))
    with pytest.raises(ValueError, match=r"words has shape \(29, 12\); expected \[30,"):
        MaskedLmHead(config).init(jax.random.key(0), hidden, words)
    with pytest.raises(ValueError, match=r"hidden has shape \(1, 2, 12\)"):
        ReplacedTokenHead(DebertaConfig.from_hf(V3 | {"hidden_size": 14})).init(
            jax.random.key(0), hidden
        )
    ids, mask = inputs(12)
    model = MaskedLm(config, enhanced=True)
    with pytest.raises(ValueError, match="there are 11 absolute positions"):
        model.init(jax.random.key(0), ids, mask, deterministic=True)


def test_a_head_has_the_rows_of_the_table_only():
    """No tensor of a head is also a tensor of an encoder."""
    for entries in (V3, V1, BERT):
        config = DebertaConfig.from_hf(entries)
        names = {row.name for row in tables.rows(config)}
        assert not any(name.startswith(tables.OTHER_HEADS) for name in names)
