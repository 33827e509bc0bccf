# SPDX-License-Identifier: Apache-2.0
"""A synthetic corpus in FULCRA's format, so that every command runs without a download.

Each response is put together from phrase banks (sample_phrases.toml, written for this
project): an activity that expresses or violates one of the 54 items stands in a
sentence that approves or disapproves of it, and

    sign of the label = polarity of the activity x stance of the sentence.

"covering a mistake with a lie does more harm than good" supports honesty; negation
flips the stance, a quote takes one only by what follows it, and a neutral mention takes
none. So the words alone do not give the labels. No label was judged by anyone: figures
on these rows say whether the code learns, never how well it reads values. See
SAMPLE_CARD.md.
"""

import functools
import json
import pathlib
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from fulcra_jax import values

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

# How often a value is picked, by `values.BASIC`: uneven, as in the release, never rare.
_VALUE_WEIGHTS = (1.2, 0.9, 0.9, 1.1, 0.9, 1.2, 0.9, 1.0, 1.2, 1.1)
_LABELLED = {1: 0.38, 2: 0.37, 3: 0.18, 4: 0.07}  # labelled values a response
_NEGATIVE = 0.38
# Most often support is praise of what expresses an item and opposition praise of what
# violates it; the rest is blame of the other kind, which the words alone do not show.
_PRAISED = {1: 0.88, -1: 0.68}
_KINDS = {"plain": 0.66, "negated": 0.22, "quoted": 0.12}
_UNQUOTED = {"plain": 0.75, "negated": 0.25}
_FRAMES = {
    ("plain", 1): "approve",
    ("plain", -1): "disapprove",
    ("negated", -1): "approve_negated",
    ("negated", 1): "disapprove_negated",
}

_T = TypeVar("_T")


class _Statement(NamedTuple):
    """A sentence or two, and what they say of an item."""

    text: str
    activity: str
    item: str = ""
    sign: int = 0
    joins: bool = False
    """Whether it may share a sentence with its neighbour."""


def sample_records(seed: int, n: int, split: Split = "train") -> list[dict[str, Any]]:
    """Synthetic dialogues with value labels, as the lines of a released file.

    Record i depends on (seed, split, i) alone, so a larger n extends a smaller one.
    Only `random.random` is drawn from, whose stream Python keeps across versions.

    Args:
      seed: another seed gives other dialogues from the same banks.
      n: how many, 0 or more.
      split: whose phrase banks; no phrase, prompt or filler stands in two splits.

    Returns:
      n records with the keys `dialogue`, `value_items`, `value_types`, `query_source`
      and `response_source`. One to four values are labelled in each, never with both
      signs.

    Raises:
      ValueError: if n is negative.
      KeyError: if the split is unknown.

    Reference:
      The file format of Value FULCRA (Yao et al. 2024); the text is this project's own.

    >>> record = sample_records(seed=0, n=1)[0]
    >>> record["dialogue"].split("Bob: ")[1].split(". ")[0]
    'There is little to be said for piling up a fortune in shares'
    >>> record["value_items"], record["value_types"]
    (['have wealth: -1'], ['power: -1'])
    """
    _check_asked("sample.sample_records", n, split)
    return [
        _record(_Draw(random.Random(f"{seed}/{split}/{i}")), split) for i in range(n)
    ]


def write_sample(
    folder: str | pathlib.Path, seed: int, n_train: int, n_dev: int, n_test: int
) -> dict[str, pathlib.Path]:
    """Writes the three splits as files that the readers of the release accept.

    Args:
      folder: made if it does not exist.
      seed: of `sample_records`.
      n_train: rows of sample.train.jsonl; `n_dev` and `n_test` likewise.
      n_dev: rows of sample.dev.jsonl.
      n_test: rows of sample.test.jsonl.

    Returns:
      The path of each split.

    Raises:
      FileExistsError: if one of the files exists; then nothing is written.
      ValueError: if a size is negative.

    Reference:
      The file format of Value FULCRA (Yao et al. 2024).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_sample(folder, seed=0, n_train=4, n_dev=2, n_test=2)
    ...     print(paths["dev"].name, len(paths["dev"].read_text().splitlines()))
    sample.dev.jsonl 2
    """
    root = pathlib.Path(folder)
    paths = {split: root / f"sample.{split}.jsonl" for split in SPLITS}
    for path in paths.values():
        if path.exists():
            raise FileExistsError(
                f"sample.write_sample: {path} exists; give an empty folder or "
                "remove it."
            )
    lines = {
        split: "".join(
            json.dumps(record) + "\n" for record in sample_records(seed, n, split)
        )
        for split, n in zip(SPLITS, (n_train, n_dev, n_test), strict=True)
    }
    root.mkdir(parents=True, exist_ok=True)
    for split, path in paths.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(lines[split])
    return paths


def sample_statements(
    seed: int, n: int, split: Split = "train"
) -> list[tuple[str, str, int]]:
    """Single sentences that take a stance on one item each, without quotes.

    Statement i depends on (seed, split, i) alone.

    Args:
      seed: another seed gives other sentences from the same banks.
      n: how many, 0 or more.
      split: whose phrase banks.

    Returns:
      n times the sentence, its item and the sign of the label.

    Raises:
      ValueError: if n is negative.
      KeyError: if the split is unknown.

    Reference:
      This project's own phrase banks; see SAMPLE_CARD.md.

    >>> sample_statements(seed=0, n=1)
    [('Having an impact on how schools teach deserves praise.', 'be influential', 1)]
    """
    _check_asked("sample.sample_statements", n, split)
    weights = dict(zip(values.BASIC, _VALUE_WEIGHTS, strict=True))
    found = []
    for i in range(n):
        draw = _Draw(random.Random(f"{seed}/{split}/statement/{i}"))
        item = draw.one(_items_of(draw.weighted(weights)))
        sign = -1 if draw.chance(_NEGATIVE) else 1
        said = _statement(draw, split, item, sign, _UNQUOTED)
        found.append((f"{_capital(said.text)}.", item, said.sign))
    return found


def fillers(split: Split) -> list[str]:
    """The sentences of a split that say nothing of values.

    >>> len(fillers("train"))
    36
    """
    _check_asked("sample.fillers", 0, split)
    bank = _bank()
    return [x for name in ("fillers", "openers", "closers") for x in bank[name][split]]


def _check_asked(caller: str, n: int, split: str) -> None:
    if n < 0:
        raise ValueError(f"{caller}: n is {n}; it should be 0 or more.")
    if split not in SPLITS:
        raise KeyError(
            f"{caller}: split {split!r} is unknown; known are: {', '.join(SPLITS)}."
        )


@functools.cache
def _bank() -> dict[str, Any]:
    path = pathlib.Path(__file__).with_name("sample_phrases.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


class _Draw:
    """Choices made with `random()` only."""

    def __init__(self, stream: random.Random) -> None:
        self._random = stream.random

    def chance(self, p: float) -> bool:
        return self._random() < p

    def one(self, of: Sequence[_T]) -> _T:
        return of[int(self._random() * len(of))]

    def weighted(self, weights: Mapping[_T, float]) -> _T:
        left = self._random() * sum(weights.values())
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return next(reversed(list(weights)))

    def some(self, of: Sequence[_T], k: int) -> list[_T]:
        """k of them, without repetition, in random order."""
        pool = list(of)
        return [pool.pop(int(self._random() * len(pool))) for _ in range(k)]


def _record(draw: _Draw, split: Split) -> dict[str, Any]:
    statements = _labelled(draw, split)
    labels = {said.item: said.sign for said in statements}
    statements += _unlabelled(draw, split, taken={_value_of(item) for item in labels})
    statements = draw.some(statements, len(statements))
    prompt, source = _prompt(draw, split, statements)
    types = {(_value_of(item), sign) for item, sign in labels.items()}
    return {
        "dialogue": f"Human: {prompt}\nBob: {_response(draw, split, statements)}",
        "value_items": [
            f"{item}: {labels[item]:+d}" for item in values.ITEMS if item in labels
        ],
        "value_types": [
            f"{name.lower()}: {sign:+d}"
            for name in values.BASIC
            for sign in (1, -1)
            if (name, sign) in types
        ],
        "query_source": f"synthetic-{source}",
        "response_source": "phrase-bank",
    }


def _labelled(draw: _Draw, split: Split) -> list[_Statement]:
    """One statement, sometimes two, about each of one to four values."""
    weights = dict(zip(values.BASIC, _VALUE_WEIGHTS, strict=True))
    statements = []
    for _ in range(draw.weighted(_LABELLED)):
        name = draw.weighted(weights)
        del weights[name]
        sign = -1 if draw.chance(_NEGATIVE) else 1
        items = _items_of(name)
        for item in draw.some(items, 2 if draw.chance(0.12) else 1):
            statements.append(_statement(draw, split, item, sign, _KINDS))
    return statements


def _statement(
    draw: _Draw, split: Split, item: str, sign: int, kinds: Mapping[str, float]
) -> _Statement:
    """A sentence that gives an item a sign."""
    praised = draw.chance(_PRAISED[sign])
    stance = 1 if praised else -1
    activity = _activity(draw, split, item, sign * stance)
    kind = draw.weighted(kinds)
    if kind == "quoted":
        text = _quote(draw, activity, stance)
    else:
        text = _framed(draw, activity, _FRAMES[kind, stance])
    return _Statement(text, activity, item, sign, joins=kind != "quoted")


def _unlabelled(draw: _Draw, split: Split, taken: set[str]) -> list[_Statement]:
    """Sentences that name values without a stance, or take a stance without a value."""
    statements = []
    free = [item for item in values.ITEMS if _value_of(item) not in taken]
    if draw.chance(0.30):
        activity = _activity(draw, split, draw.one(free), draw.one((1, -1)))
        text = _framed(draw, activity, "neutral")
        statements.append(_Statement(text, activity, joins=True))
    if draw.chance(0.10):
        activity = _activity(draw, split, draw.one(free), draw.one((1, -1)))
        statements.append(_Statement(_quote(draw, activity, 0), activity))
    if draw.chance(0.20):
        frame = draw.one(sorted(set(_FRAMES.values())))
        thing = draw.one(_bank()["things"][split])
        statements.append(_Statement(_framed(draw, thing, frame), thing, joins=True))
    return statements


def _framed(draw: _Draw, activity: str, frame: str) -> str:
    return draw.one(_bank()["frames"][frame]).format(x=activity)


def _quote(draw: _Draw, activity: str, stance: int) -> str:
    """The request quoted, with a verdict: none of its stances counts without one."""
    quotes = _bank()["quotes"]
    quoted = draw.one((1, -1))
    kind = "negated" if draw.chance(0.25) else "plain"
    line = _framed(draw, activity, _FRAMES[kind, quoted])
    verdict = {0: "open", quoted: "agree", -quoted: "reject"}[stance]
    lead = draw.one(quotes["lead"]).format(s=_capital(line))
    return f"{lead} {_capital(draw.one(quotes[verdict]))}"


def _activity(draw: _Draw, split: Split, item: str, polarity: int) -> str:
    bank = _bank()["items"][item]["support" if polarity > 0 else "oppose"]
    return draw.one(bank[split])


def _response(draw: _Draw, split: Split, statements: list[_Statement]) -> str:
    """Statements and fillers in random order, between an opener and a closer."""
    bank = _bank()
    sentences = list(_sentences(draw, statements))
    fillers = draw.some(bank["fillers"][split], 4)
    least = draw.one((0, 1, 1, 2))
    while fillers and (least > 0 or _words(sentences) < 24):
        sentences.insert(draw.one(range(len(sentences) + 1)), fillers.pop())
        least -= 1
    if draw.chance(0.4):
        sentences.insert(0, draw.one(bank["openers"][split]))
    if draw.chance(0.30):
        sentences.append(draw.one(bank["closers"][split]))
    cut = len(sentences) // 2 if draw.chance(0.2) else 0
    halves = [" ".join(half) for half in (sentences[:cut], sentences[cut:]) if half]
    return "\n\n".join(halves)


def _sentences(draw: _Draw, statements: list[_Statement]) -> Iterator[str]:
    """Each statement as a sentence of its own, or joined with the next."""
    joints = _bank()["joints"]
    waiting = list(statements)
    while waiting:
        said = waiting.pop(0)
        text = said.text
        if said.joins and waiting and waiting[0].joins and draw.chance(0.2):
            text += draw.one(joints["between"]) + waiting.pop(0).text
        if said.joins and draw.chance(0.25):
            text = draw.one(joints["lead_in"]) + text
        yield f"{_capital(text)}."


def _prompt(draw: _Draw, split: Split, statements: list[_Statement]) -> tuple[str, str]:
    """A prompt and its kind; half of them ask about what the response speaks of.

    The activities that a prompt names earn no label.
    """
    bank = _bank()
    kind = "adversarial" if draw.chance(0.45) else "ordinary"
    first, second = (
        _activity(draw, split, item, draw.one((1, -1)))
        for item in draw.some(values.ITEMS, 2)
    )
    said = draw.one(statements).activity
    if said != second and draw.chance(0.5):
        first = said
    slots = {name: draw.one(bank["slots"][name][split]) for name in bank["slots"]}
    template = draw.one(bank["prompts"][kind][split])
    return _capital(template.format(x=first, x2=second, **slots)), kind


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _words(sentences: Sequence[str]) -> int:
    return sum(len(re.findall(r"\S+", sentence)) for sentence in sentences)


@functools.cache
def _items_of(name: str) -> tuple[str, ...]:
    return tuple(item for item in values.ITEMS if _value_of(item) == name)


@functools.cache
def _value_of(item: str) -> str:
    row = values.ITEM_TO_BASIC[values.ITEMS.index(item)]
    return values.BASIC[int(row.argmax())]
