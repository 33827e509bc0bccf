# SPDX-License-Identifier: Apache-2.0
"""Targets of countries from one's own copy of the European Social Survey.

The survey's files are free to download from its data portal after registration and may
not be passed on, so none is part of this project.
"""

import array
import csv
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fulcra_jax import _check, values
from fulcra_jax.targets.profile import SCALES, GroupTarget, Scale
from fulcra_jax.targets.questionnaires import from_pvq21, valid_respondents

VARIABLES: tuple[str, ...] = (
    "ipcrtiv", "imprich", "ipeqopt", "ipshabt", "impsafe", "impdiff", "ipfrule",
    "ipudrst", "ipmodst", "ipgdtim", "impfree", "iphlppl", "ipsuces", "ipstrgv",
    "ipadvnt", "ipbhprp", "iprspot", "iplylfr", "impenv", "imptrad", "impfun",
)  # fmt: skip
"""The items 1 to 21; round 11 adds the suffix a."""

Weight = Literal["anweight", "pspwght", "dweight"]
WEIGHTS = ("anweight", "pspwght", "dweight")

_READ = frozenset(
    (*VARIABLES, *(f"{name}a" for name in VARIABLES), *WEIGHTS, "cntry", "essround")
)
_STATIC = ("center", "scale", "max_missing", "max_same")
_BLANK = frozenset({"", ".", "na", "n/a", "nan", "none"})


@dataclasses.dataclass(frozen=True, eq=False)
class EssTarget:
    """A target from the survey and what it rests on."""

    target: np.ndarray
    """`[V]` in the order of `values.BASIC`."""
    standard_error: np.ndarray
    """`[V]`; respondents taken for independent, so too small for clustered samples."""
    effective_size: np.ndarray
    """`[V]`, (sum w)^2 / sum w^2."""
    num_used: int
    """Respondents that count."""
    left_out: dict[str, int]
    """Reason -> respondents of the chosen countries and rounds who do not count."""
    weight: str | None
    """The weight variable, None for equal weights."""
    sum_of_weights: float
    """Of the respondents that count."""
    countries: dict[str, int]
    """Country -> respondents that count; empty for a file without countries."""
    rounds: dict[int, int]
    """Round -> respondents that count; empty for a file without rounds."""

    def __str__(self) -> str:
        """The record as a few lines."""
        out = ", ".join(f"{n} {why}" for why, n in self.left_out.items() if n)
        numbers = ", ".join(
            f"{name} {t:+.2f}"
            for name, t in zip(values.ABBREVIATIONS, self.target, strict=True)
        )
        return (
            f"{numbers}\n{self.num_used} respondents "
            f"({', '.join(self.countries) or 'no country'}), weight {self.weight}; "
            f"left out: {out or 'none'}."
        )


def from_ess(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    country: str | Sequence[str] | None = None,
    round: int | Sequence[int] | None = None,
    weight: Weight | None = "anweight",
    center: bool = False,
    scale: Scale | None = None,
    max_missing: int | None = 5,
    max_same: int | None = 16,
    delimiter: str = ",",
) -> EssTarget:
    """The target of a country from a file of the European Social Survey.

    t_v = sum_n w_n s_nv / sum_n w_n, as in `from_pvq21`.

    A host function: it reads line by line and keeps 21 bytes and a weight of each
    respondent.

    Args:
      source: a CSV file with a header, or rows as mappings. Names in any case; the 21
        items with or without the suffix a of round 11. In a file that has both columns
        the answered one counts.
      country: one code of the column cntry or several ("GB", "NL", "FR"), None for all.
      round: one number of the column essround or several, None for all.
      weight: "anweight" for everything since the survey offers it; "pspwght" for files
        of one country without it; "dweight" corrects for the sampling alone. With
        pspwght and dweight several countries count by their number of respondents, not
        of inhabitants. None: all alike.
      center: subtract each respondent's mean first; see `from_pvq21`.
      scale: "raw", "largest" or None; see `from_pvq21`.
      max_missing: with more answers missing, a respondent is left out; None for never.
      max_same: with more answers the same, a respondent is left out; None for never.
      delimiter: of the file.

    Returns:
      `EssTarget`: the target, its standard error, who counts and who was left out.

    Raises:
      ValueError: if a column is missing, a line has another number of fields than the
        header, a field is no number, or nobody is left; the message names the file, the
        line and the column.
      KeyError: if a country or round does not occur (the message lists those that do),
        or `weight` or `scale` is unknown.

    Reference:
      Schwartz 2003, the human values scale; European Social Survey, "Guide to using
      weights and sample design indicators".

    >>> answers = [1, 5, 1, 4, 2, 4, 4, 2, 4, 4, 2, 2, 4, 2, 5, 3, 4, 1, 1, 3, 77]
    >>> row = {"cntry": "NL", "pspwght": 1.2} | dict(zip(VARIABLES, answers))
    >>> silent = row | dict.fromkeys(VARIABLES[:6], 99)
    >>> print(from_ess([row, row, silent], country="NL", weight="pspwght"))
    SD +0.80, ST -0.40, HE -0.20, AC -0.20, PO -0.40, SE +0.60, TR +0.00, CO +0.00, \
BE +0.80, UN +0.87
    2 respondents (NL), weight pspwght; left out: 1 too many answers missing.
    """
    caller = "ess.from_ess"
    if weight is not None:
        _check.known(caller, "weight", weight, WEIGHTS)
    if scale is not None:
        _check.known(caller, "scale", scale, SCALES)
    wanted = _Wanted.of(country, round)
    file = os.fspath(source) if isinstance(source, str | os.PathLike) else "rows"
    if isinstance(source, str | os.PathLike):
        with open(source, encoding="utf-8-sig", newline="") as lines:
            found = _collect(_lines(file, lines, delimiter), file, wanted, weight)
    else:
        found = _collect(_mappings(source), file, wanted, weight)

    weighed = np.isfinite(found.weights) & (found.weights > 0.0)
    w = np.where(weighed, found.weights, 0.0)
    complete, valid, group = _scored(
        jnp.asarray(found.answers),
        jnp.asarray(w),
        center=center,
        scale=scale,
        max_missing=max_missing,
        max_same=max_same,
    )
    complete, valid = np.asarray(complete), np.asarray(valid)
    used = weighed & valid
    left_out = {
        "too many answers missing": int((~complete).sum()),
        "too many answers the same": int((complete & ~valid).sum()),
        "no weight above 0": int((valid & ~weighed).sum()),
    }
    if not used.any():
        raise ValueError(
            f"{caller}: {file}: none of {len(used)} respondents is left; left out: "
            f"{left_out}."
        )
    return EssTarget(
        target=np.asarray(group.target, float),
        standard_error=np.asarray(group.standard_error, float),
        effective_size=np.asarray(group.effective_size, float),
        num_used=int(used.sum()),
        left_out=left_out,
        weight=weight,
        sum_of_weights=float(w[used].sum()),
        countries=_counts(found.countries, used),
        rounds={int(r): n for r, n in _counts(found.rounds, used).items()},
    )


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Countries and rounds to read; None for all."""

    countries: frozenset[str] | None
    rounds: frozenset[str] | None

    @classmethod
    def of(
        cls, country: str | Sequence[str] | None, number: int | Sequence[int] | None
    ) -> "_Wanted":
        codes = [country] if isinstance(country, str) else country
        numbers = [number] if isinstance(number, int) else number
        return cls(
            None if codes is None else frozenset(c.strip().upper() for c in codes),
            None if numbers is None else frozenset(str(int(n)) for n in numbers),
        )


@dataclasses.dataclass(frozen=True)
class _Found:
    answers: np.ndarray
    """`[N, 21]` uint8, 0 for a missing answer."""
    weights: np.ndarray
    """`[N]` float64, NaN for none."""
    countries: list[str]
    rounds: list[str]


# A line: where it stands, and its fields by lower-case name.
Line = tuple[str, Mapping[str, Any]]


def _lines(file: str, lines: Iterable[str], delimiter: str) -> Iterator[Line]:
    reader = csv.reader(lines, delimiter=delimiter)
    header = [name.strip().lower() for name in next(reader, [])]
    # A file of the survey has hundreds of columns.
    read = [(i, name) for i, name in enumerate(header) if name in _READ]
    for row in reader:
        place = f"{file}, line {reader.line_num}"
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(
                f"ess.from_ess: {place} has {len(row)} fields; expected {len(header)} "
                f"as in the header (delimiter {delimiter!r})."
            )
        yield place, {name: row[i] for i, name in read}


def _mappings(rows: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    for number, row in enumerate(rows):
        yield f"row {number}", {str(k).strip().lower(): v for k, v in row.items()}


def _collect(
    lines: Iterable[Line], file: str, wanted: _Wanted, weight: str | None
) -> _Found:
    answers, weights = bytearray(), array.array("d")
    countries: list[str] = []
    rounds: list[str] = []
    seen: tuple[set[str], set[str]] = (set(), set())
    columns: list[list[str]] | None = None
    for place, row in lines:
        # Rows given as mappings may lack what is blank in them: the first is the rule.
        if columns is None:
            columns = _columns(file, row, wanted, weight)
        code = str(row.get("cntry", "") or "").strip().upper()
        number = _number(place, "essround", row.get("essround", ""))
        number = "" if np.isnan(number) else f"{number:g}"
        seen[0].add(code)
        seen[1].add(number)
        if wanted.countries is not None and code not in wanted.countries:
            continue
        if wanted.rounds is not None and number not in wanted.rounds:
            continue
        answers.extend(_answer(place, names, row) for names in columns)
        weights.append(
            1.0 if weight is None else _number(place, weight, row.get(weight))
        )
        countries.append(code)
        rounds.append(number)
    if columns is None:
        raise ValueError(f"ess.from_ess: {file} has no respondent.")
    for what, asked, there in (
        ("country", wanted.countries, seen[0]),
        ("round", wanted.rounds, seen[1]),
    ):
        for name in sorted(asked or ()):
            _check.known(f"ess.from_ess: {file}", what, name, tuple(sorted(there)))
    return _Found(
        np.frombuffer(bytes(answers), np.uint8).reshape(-1, len(VARIABLES)),
        np.frombuffer(weights.tobytes(), np.float64),
        countries,
        rounds,
    )


def _columns(
    file: str, row: Mapping[str, Any], wanted: _Wanted, weight: str | None
) -> list[list[str]]:
    """The column or columns of each item; raises if something needed is missing."""
    columns = [[n for n in (item, f"{item}a") if n in row] for item in VARIABLES]
    missing = [
        item for item, names in zip(VARIABLES, columns, strict=True) if not names
    ]
    if wanted.countries is not None and "cntry" not in row:
        missing.append("cntry")
    if wanted.rounds is not None and "essround" not in row:
        missing.append("essround")
    if weight is not None and weight not in row:
        missing.append(weight)
    if missing:
        others = [name for name in WEIGHTS if name in row]
        hint = f"; it has the weights {', '.join(others) or 'none'}"
        raise ValueError(
            f"ess.from_ess: {file} has no column {', '.join(missing)}"
            f"{hint if weight in missing else ''}; items may have the suffix a."
        )
    return columns


def _answer(place: str, names: list[str], row: Mapping[str, Any]) -> int:
    """1 to 6, or 0 for a missing answer."""
    given = {
        int(x) for n in names if (x := _number(place, n, row.get(n, ""))) in range(1, 7)
    }
    if len(given) > 1:
        raise ValueError(
            f"ess.from_ess: {place}: {' and '.join(names)} hold {sorted(given)}; "
            "expected one answer."
        )
    return given.pop() if given else 0


def _number(place: str, column: str, field: object) -> float:
    text = "" if field is None else str(field).strip()
    if text.lower() in _BLANK:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"ess.from_ess: {place}: {column} is {text!r}; expected a number (export "
            "codes, not labels)."
        ) from None


@functools.partial(jax.jit, static_argnames=_STATIC)
def _scored(
    responses: jax.Array,
    weights: jax.Array,
    *,
    center: bool,
    scale: Scale | None,
    max_missing: int | None,
    max_same: int | None,
) -> tuple[jax.Array, jax.Array, GroupTarget]:
    """Who answered enough, who of them told items apart, and their target."""
    complete = valid_respondents(responses, max_missing=max_missing, max_same=None)
    valid = valid_respondents(responses, max_missing=max_missing, max_same=max_same)
    group = from_pvq21(
        responses,
        weights=weights,
        center=center,
        scale=scale,
        max_missing=max_missing,
        max_same=max_same,
    )
    return complete, valid, group


def _counts(names: list[str], used: np.ndarray) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, counts_too in zip(names, used, strict=True):
        if counts_too and name:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
