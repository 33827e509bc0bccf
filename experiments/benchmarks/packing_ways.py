# SPDX-License-Identifier: Apache-2.0
"""The three ways of the packing benchmark: texts, batches, programs."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.encoder_ours import MODELS
from fulcra_jax import data, models, objectives
from fulcra_jax.configs import EvaluatorConfig, SharedHead
from fulcra_jax.data import packing, source
from fulcra_jax.data.batches import Batch
from fulcra_jax.data.tokenizer import PairTokenizer

ROWS = "../shared/data/fulcra/trustworthy.train.jsonl"
UNSORTED, SORTED, PACKED = "unsorted", "sorted", "packed"
NAMES = {
    UNSORTED: "(a) random order, padded to the longest of 16",
    SORTED: "(b) sorted by length, padded to the longest",
    PACKED: "(c) packed",
}
Mode = Literal["forward", "training"]
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is measured."""

    file: str = ROWS
    """Rows in FULCRA's format; without the default file, the embedded corpus."""
    texts: int = 192
    """Timed; drawn at random from the rows. Padding is measured on all rows."""
    model: Literal["base", "large", "tiny"] = "base"
    """Whose shapes."""
    layers: int = 2
    capacity: int = 512
    """Tokens of a packed row, and most tokens of a text."""
    rows: int = 8
    """Packed rows in a batch."""
    max_segments: int = 16
    """Most texts in a packed row."""
    batch_size: int = 16
    """Of (a)."""
    rounds: int = 5
    """Quiet rounds that count."""
    retries: int = 5
    """Rounds repeated because of foreign load."""
    foreign: float = 0.05
    """Most share of the processors that others may use in a round."""
    out: str = "runs/benchmark-packing"


class Texts(NamedTuple):
    """N tokenised pairs and their labels."""

    ids: list[np.ndarray]
    types: list[np.ndarray]
    labels: np.ndarray
    """`[N, V]` float32."""
    where: np.ndarray
    """`[N, V]` bool."""

    def of(self, chosen: np.ndarray) -> "Texts":
        """Some of them."""
        ids, types = ([x[i] for i in chosen] for x in (self.ids, self.types))
        return Texts(ids, types, self.labels[chosen], self.where[chosen])

    def lengths(self) -> np.ndarray:
        """`[N]` tokens."""
        return np.array([len(ids) for ids in self.ids])


def read_texts(arguments: Arguments) -> tuple[str, Texts, int]:
    """Where the rows are from, all of them tokenised, and the size of the vocabulary.

    The tokenizer is trained on them, as `experiments.train` does.
    """
    path = pathlib.Path(arguments.file)
    if path.is_file():
        found, rejects = data.read_rows(path)
        note = f"{path.name}: {len(found)} rows, {len(rejects)} set aside"
    elif arguments.file == ROWS:
        found = data.sample_rows(0, 1000)
        note = f"embedded corpus, 1,000 rows: {ROWS} is not here"
    else:
        raise FileNotFoundError(f"benchmarks.packing: there is no file {path}.")
    if not found:
        raise ValueError(f"benchmarks.packing: {path} holds no row in FULCRA's format.")
    print(note, flush=True)
    prompts, responses = (
        [getattr(r, x) for r in found] for x in ("prompt", "response")
    )
    tokenizer = PairTokenizer.train([*prompts, *responses], 8000)
    encoded = tokenizer.encode(prompts, responses, max_length=arguments.capacity)
    texts = Texts(encoded.ids, encoded.types, *source.label_arrays(found))
    return note, texts, tokenizer.vocab_size


def evaluator_of(arguments: Arguments, vocab_size: int) -> tuple[models.Evaluator, Any]:
    """An evaluator with random weights, without dropout."""
    encoder = dataclasses.replace(
        MODELS[arguments.model],
        num_hidden_layers=arguments.layers,
        vocab_size=vocab_size,
        type_vocab_size=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    evaluator = models.Evaluator(EvaluatorConfig(encoder, SharedHead(dropout=0.0)))
    ids = jnp.zeros((1, 8), jnp.int32)
    init = jax.jit(lambda key: evaluator.init(key, ids, ids > -1, deterministic=True))
    return evaluator, init(jax.random.key(0))["params"]


def batches_of(arguments: Arguments, texts: Texts) -> dict[str, list[Batch]]:
    """The texts in each of the three ways."""
    return {
        name: [padded(texts, rows) for rows in groups]
        for name, groups in groups_of(arguments, texts.lengths()).items()
    } | {PACKED: packed(arguments, texts)}


def groups_of(arguments: Arguments, lengths: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Which texts make a padded batch, in random order and by length."""
    size, budget = arguments.batch_size, arguments.rows * arguments.capacity
    order = np.arange(len(lengths))
    unsorted = [order[i : i + size] for i in range(0, len(order), size)]
    by_length: list[list[int]] = [[]]
    for text in np.argsort(lengths, kind="stable"):
        if (len(by_length[-1]) + 1) * lengths[text] > budget:
            by_length.append([])
        by_length[-1].append(int(text))
    return {UNSORTED: unsorted, SORTED: [np.array(group) for group in by_length]}


def padded(texts: Texts, rows: np.ndarray) -> Batch:
    """A batch `[B, T]`, T the length of its longest text; `source` `[B]` says which."""
    length = int(texts.lengths()[rows].max())
    batch = {
        "input_ids": np.zeros((len(rows), length), np.int32),
        "mask": np.zeros((len(rows), length), bool),
        "token_type_ids": np.zeros((len(rows), length), np.int32),
        "labels": texts.labels[rows],
        "labels_where": texts.where[rows],
        "source": rows,
    }
    for place, row in enumerate(rows):
        columns = slice(0, len(texts.ids[row]))
        batch["input_ids"][place, columns] = texts.ids[row]
        batch["token_type_ids"][place, columns] = texts.types[row]
        batch["mask"][place, columns] = True
    return batch


def packed(arguments: Arguments, texts: Texts) -> list[Batch]:
    """Batches of packed rows, with labels `[R, S, V]`."""
    stream = packing.packed_batches(
        zip(texts.ids, texts.types, strict=True),
        batch_size=arguments.rows,
        capacity=arguments.capacity,
        max_segments=arguments.max_segments,
        window=len(texts.ids),
        pad_id=0,
    )
    return [
        batch
        | {
            "labels": texts.labels[batch["source"]],
            "labels_where": texts.where[batch["source"]] & batch["where"][..., None],
        }
        for batch in stream
    ]


def logits_of(evaluator: models.Evaluator, params: Any, batch: Batch) -> jax.Array:
    """Logits of the texts of a batch, padded or packed."""
    return models.apply_evaluator(evaluator, params, batch).logits


def loss_of(evaluator: models.Evaluator, params: Any, batch: Batch) -> jax.Array:
    """Cross-entropy, the mean over the labelled cells."""
    logits = logits_of(evaluator, params, batch)
    labels, where = jnp.asarray(batch["labels"]), jnp.asarray(batch["labels_where"])
    loss = objectives.ternary_cross_entropy(logits, labels, where=where)
    return objectives.masked_mean(loss, where)


def way_of(
    evaluator: models.Evaluator, params: Any, batches: Sequence[Batch], mode: Mode
) -> Callable[[], object]:
    """One pass over all batches, compiled for every shape among them."""

    def run(params: Any, batch: Batch) -> Any:
        if mode == "forward":
            return logits_of(evaluator, params, batch)
        return jax.grad(lambda params: loss_of(evaluator, params, batch))(params)

    compiled: dict[tuple[int, ...], Any] = {}
    jitted = jax.jit(run)
    for batch in batches:
        shape = batch["input_ids"].shape
        if shape not in compiled:
            compiled[shape] = jitted.lower(params, batch).compile()

    def call() -> None:
        for batch in batches:
            program = compiled[batch["input_ids"].shape]
            jax.block_until_ready(program(params, batch))

    return call


def largest_difference(
    evaluator: models.Evaluator,
    params: Any,
    batches: dict[str, list[Batch]],
    count: int,
) -> dict[str, float]:
    """Between the logits of a text in a packed row and in a padded batch.

    Returns:
      The difference, and the largest logit, which says what it is worth.

    Raises:
      ValueError: if it is above 1e-5, or a text is missing.
    """
    run = jax.jit(lambda batch: logits_of(evaluator, params, batch))
    shape = (count, evaluator.config.head.num_values, evaluator.config.num_classes)
    alone, together = np.full(shape, np.nan), np.full(shape, np.nan)
    for batch in batches[UNSORTED]:
        alone[batch["source"]] = run(batch)
    for batch in batches[PACKED]:
        here = batch["where"]
        together[batch["source"][here]] = np.asarray(run(batch))[here]
    difference = float(np.abs(alone - together).max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"benchmarks.packing: logits in packed rows differ by {difference:.1e}; "
            f"expected at most {TOLERANCE:.0e}."
        )
    return {"difference": difference, "logit": float(np.abs(alone).max())}
