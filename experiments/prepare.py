# SPDX-License-Identifier: Apache-2.0
"""What a training needs before its first step: rows, tokens, weights."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import rundir
from experiments.config import Config
from fulcra_jax import convert, models, values
from fulcra_jax.data import batches, plan, rows, source, teacher, tokens
from fulcra_jax.data.tokenizer import PairTokenizer
from fulcra_jax.inference import with_definitions
from fulcra_jax.training import hosts, step


class Prepared(NamedTuple):
    """The data of a run."""

    config: Config
    """With the encoder's sizes as they will be."""
    corpus: source.Corpus
    train_rows: list[rows.Row]
    """Those of the corpus that have a label or a teacher's scores."""
    tokenizer: PairTokenizer
    dev: batches.Examples
    """Tokenised rows to look at."""


def prepare(config: Config, run: pathlib.Path) -> Prepared:
    """Reads the rows and finds the tokenizer, that of the run where it has one."""
    corpus = read_corpus(config)
    train_rows = trained_on(config, corpus.rows["train"])
    check_teacher(config, train_rows)
    tokenizer = (
        PairTokenizer.load(run / "tokenizer")
        if (run / "tokenizer").is_dir()
        else make_tokenizer(config, train_rows)
    )
    config = fit_to_data(config, tokenizer)
    dev = encode(config, tokenizer, corpus.rows["dev"])
    return Prepared(config, corpus, train_rows, tokenizer, dev)


def trained_on(config: Config, found: Sequence[rows.Row]) -> list[rows.Row]:
    """The rows that have a label or a teacher's score, without those of values that
    are left out."""
    if config.leave_out:
        found = [_without(row, config.leave_out) for row in found]
    return [row for row in found if row.where.any() or row.teacher is not None]


def _without(row: rows.Row, names: Sequence[str]) -> rows.Row:
    """The row with all that is told of some values masked, their items included."""
    kept = np.array([name not in names for name in values.BASIC])
    told = values.ITEM_TO_BASIC[:, ~kept].any(axis=1)
    return dataclasses.replace(
        row,
        where=row.where & kept,
        items_where=row.items_where & ~told,
        teacher=None if row.teacher is None else np.where(kept, row.teacher, np.nan),
    )


def tokenise(data: Prepared) -> tokens.Tokens:
    """The training rows as token ids, from the cache where they are in it."""
    config = data.config

    def make() -> batches.Examples:
        return encode(config, data.tokenizer, data.train_rows)

    if not config.text.cache:
        found = tokens.Tokens.in_memory(make())
    else:
        key = tokens.key_of(
            rundir.fingerprint(data.train_rows, items=config.loss.items > 0),
            data.tokenizer,
            config.text.max_length,
            targets_of(config),
        )
        # Process 0 first: the others then find what it wrote, where the disk is one.
        cached = lambda: tokens.cached(pathlib.Path(config.text.cache), key, make)
        hosts.together(lambda: cached() if hosts.lead() else None)
        found = hosts.together(cached)
    if config.control == "shuffled-labels":
        found = shuffle_labels(found, config.seed)
    return found


def layout(config: Config) -> plan.Settings:
    """How texts are laid out in batches."""
    if config.text.packed:
        return plan.Packed(config.batch_size, config.text.max_length)
    rungs = batches.ladder_up_to(config.text.max_length, config.text.ladder)
    return plan.Ladder(config.batch_size, rungs)


def read_corpus(config: Config) -> source.Corpus:
    """The rows that the configuration names."""
    match config.source:
        case source.Embedded():
            return source.read_embedded(config.source, config.policy)
        case source.Folder():
            return source.read_folder(config.source, config.policy)
        case source.Fold():
            return source.read_fold(config.source, config.policy)
        case source.ValueEval():
            return source.read_valueeval(config.source)
        case source.Release():
            # Imported here: TFDS takes seconds to load and only this source needs it.
            from fulcra_jax.data import fulcra

            return fulcra.read_release(config.source, config.policy)


def make_tokenizer(config: Config, train_rows: Sequence[rows.Row]) -> PairTokenizer:
    """The tokenizer given, the pretrained encoder's, or one trained on the rows."""
    if config.pretrained and not pathlib.Path(config.pretrained).is_dir():
        raise FileNotFoundError(
            f"train: pretrained is {config.pretrained}, which does not exist; give a "
            "Hugging Face directory with config.json, weights and a tokenizer."
        )
    if config.text.tokenizer or config.pretrained:
        return PairTokenizer.load(config.text.tokenizer or config.pretrained)
    texts = [text for row in train_rows for text in (row.prompt, row.response)]
    return PairTokenizer.train(texts, config.text.vocab_size)


def fit_to_data(config: Config, tokenizer: PairTokenizer) -> Config:
    """The configuration with the encoder's sizes as they will be.

    Raises:
      ValueError: if the tokenizer has more pieces than the pretrained encoder, the text
        is longer than its table of positions, or it knows one token type only.
    """
    encoder = config.evaluator.encoder
    if config.pretrained:
        encoder = convert.load_encoder(config.pretrained)[0]
        if tokenizer.vocab_size > encoder.vocab_size:
            raise ValueError(
                f"train: the tokenizer has {tokenizer.vocab_size} pieces, but the "
                f"encoder in {config.pretrained} knows {encoder.vocab_size}; give the "
                "tokenizer that belongs to it."
            )
    else:
        encoder = dataclasses.replace(encoder, vocab_size=tokenizer.vocab_size)
    if (
        encoder.position_biased_input
        and config.text.max_length > encoder.max_position_embeddings
    ):
        raise ValueError(
            f"train: text.max_length is {config.text.max_length}, but the encoder has "
            f"{encoder.max_position_embeddings} positions."
        )
    if encoder.type_vocab_size == 1:
        raise ValueError(
            f"train: the encoder in {config.pretrained or 'the recipe'} tells no two "
            "token types apart (type_vocab_size is 1), but prompt and response are two."
        )
    head = with_definitions(
        config.evaluator.head, tokenizer, source.definitions(config.source)
    )
    longest = head.reads(1, config.text.max_length, 1)[1]
    if encoder.position_biased_input and longest > encoder.max_position_embeddings:
        raise ValueError(
            f"train: text.max_length is {config.text.max_length}, with what the "
            f"{type(head).__name__} adds {longest}, but the encoder has "
            f"{encoder.max_position_embeddings} positions."
        )
    evaluator = dataclasses.replace(config.evaluator, encoder=encoder, head=head)
    return dataclasses.replace(config, evaluator=evaluator)


def encode(
    config: Config, tokenizer: PairTokenizer, train_rows: Sequence[rows.Row]
) -> batches.Examples:
    """Rows as token ids and arrays of targets: those that the loss weighs."""
    encoded = tokenizer.encode(
        [row.prompt for row in train_rows],
        [row.response for row in train_rows],
        max_length=config.text.max_length,
    )
    labels = source.label_arrays(list(train_rows))
    more: dict[str, np.ndarray] = {}
    if config.loss.items:
        more["items"], more["items_where"] = source.item_arrays(train_rows)
    if config.loss.teacher:
        more["teacher"], more["teacher_where"] = teacher.teacher_arrays(train_rows)
    return batches.Examples(encoded, *labels, **more)


def targets_of(config: Config) -> list[str]:
    """Which targets the loss weighs besides labels."""
    weights = {"items": config.loss.items, "teacher": config.loss.teacher}
    return [name for name, weight in weights.items() if weight]


def check_teacher(config: Config, train_rows: Sequence[rows.Row]) -> None:
    """Raises ValueError if there are a teacher's scores without a weight in the loss,
    or a weight without scores."""
    scored = sum(row.teacher is not None for row in train_rows)
    if scored and not config.loss.teacher:
        raise ValueError(
            f"train: {scored} rows carry a teacher's scores, but loss.teacher is 0; it "
            "should be above 0, or source.teacher False."
        )
    if config.loss.teacher and not scored:
        raise ValueError(
            f"train: loss.teacher is {config.loss.teacher}, but no row carries a "
            "teacher's scores; give --data FOLDER --teacher with a folder that has "
            "official_scores.NAME.train.jsonl, or set loss.teacher to 0."
        )


def shuffle_labels(found: tokens.Tokens, seed: int) -> tokens.Tokens:
    """The same texts with the targets of other rows, all of a row's together: the
    control."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(found))
    return found.with_targets(
        {name: array[order] for name, array in found.targets.items()}
    )


def make_init(
    config: Config,
    evaluator: models.Evaluator,
    transformation: optax.GradientTransformation,
) -> Callable[[], step.TrainState]:
    """A function that makes the state before the first step, for `jax.jit`."""

    def init() -> step.TrainState:
        ids = jnp.zeros((1, 8), jnp.int32)
        params = evaluator.init(
            jax.random.key(config.seed), ids, ids > -1, token_type_ids=ids,
            deterministic=True,
        )["params"]  # fmt: skip
        return step.init_state(
            params, transformation, average=config.optimizer.average > 0
        )

    return init


def load_pretrained(config: Config, abstract: Any) -> Any:
    """Encoder parameters from a Hugging Face directory, or None."""
    if not config.pretrained:
        return None
    _, params = convert.load_encoder(config.pretrained)
    want = jax.tree.map(lambda leaf: leaf.shape, abstract["encoder"])
    if jax.tree.map(lambda leaf: leaf.shape, params) != want:
        raise ValueError(
            f"train: the weights in {config.pretrained} do not fit the encoder that "
            "its config.json describes."
        )
    return params
