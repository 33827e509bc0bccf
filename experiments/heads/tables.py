# SPDX-License-Identifier: Apache-2.0
"""Which finished cells make a table, and which do not; all tables in one file."""

import pathlib
from collections.abc import Iterable, Sequence

from experiments import prepare
from experiments.heads import decided, report, running, summary, variants
from experiments.heads.cells import Cells, Key

REFERENCES = ("TF-IDF + LR", "torch-linear")
"""Systems that recipes are compared with, besides the baseline."""
SECTIONS = ("screening-dev", "heads-dev", "heads-folds", "zero-shot")
"""Files of tables, in the order of report.md."""


def checked(
    setting: running.Setting, cells: Cells, keys: Iterable[Key], *, encoder_known: bool
) -> tuple[dict[Key, str], list[str]]:
    """What finished cells must be to stand in a table together.

    Args:
      setting: the base recipe, rows and encoder of the table.
      cells: the finished ones.
      keys: those that the table might have.
      encoder_known: whether the setting names the encoder. Without, only the rows of
        the recipes are known, by the texts that lie beside their predictions.

    Returns:
      The digest that each cell must have, for `summary.systems_of`, and a sentence for
      each that is left out or cannot be checked.
    """
    finished, settings, notes, unchecked = cells.read(), {}, [], set()
    for key in keys:
        if key not in finished:
            continue
        if key.recipe not in running.FLOORS and not (
            encoder_known
            and key.encoder == setting.name
            and variants.is_known(key.variants)
        ):
            if key.recipe not in REFERENCES:
                unchecked.add(key.recipe)
            continue
        settings[key] = running.settings_of_key(setting, key)
        if finished[key].settings != settings[key]:
            notes.append(
                f"Left out: {key}, a cell of other rows, another encoder or another "
                f"configuration ({finished[key].settings}, now {settings[key]})."
            )
    if unchecked:
        why = (
            "their variant (FULCRA_HEADS) or encoder is not known here"
            if encoder_known
            else "the encoder is not given (--encoder)"
        )
        notes.append(
            f"Not checked against a configuration, as {why}: "
            f"{', '.join(sorted(unchecked))}."
        )
    return settings, notes


def write(
    setting: running.Setting,
    cells: Cells,
    wanted: Sequence[Key],
    *,
    title: str,
    baseline: str,
    encoder_known: bool,
) -> list[str]:
    """Writes the tables of dev and of the folds; returns those that have a system.

    Args:
      setting: the base recipe, rows, encoder, and the folder of the tables.
      cells: the finished ones.
      wanted: cells that were asked for; their recipes come first.
      title: "heads" or "screening".
      baseline: the recipe that others are compared with.
      encoder_known: as of `checked`.
    """
    finished = cells.read()
    keys = [*wanted, *(key for key in finished if key not in wanted)]
    recipes = list(dict.fromkeys(k.recipe for k in keys if ":" not in k.split))
    folds = sorted({key.split for key in keys if key.split.startswith("fold")})
    texts = []
    for part, names in (("dev", ["dev"]), ("folds", folds)):
        inside = [key for key in keys if key.split in names]
        if not any(key in finished for key in inside):
            continue
        settings, notes = checked(setting, cells, inside, encoder_known=encoder_known)
        notes.insert(0, rows_note(setting))
        held = summary.held_rows({name: _held(setting, name) for name in names})
        systems = summary.systems_of(cells, held, recipes, settings, notes)
        notes += _unfinished(finished, inside, names)
        if not systems:
            print("\n".join(notes))
            continue
        systems = decided.with_derived(systems, held)
        print(f"{title} {part}: intervals of {len(systems)} systems ...", flush=True)
        found = summary.summarise(systems, held, [baseline, *REFERENCES])
        where = "judged on dev" if part == "dev" else f"{len(names)} folds, pooled"
        texts.append(
            report.write(found, setting.out, f"{title} {part}: {where}", notes)
        )
    return texts


def rows_note(setting: running.Setting) -> str:
    """Of which rows a table is."""
    return f"Rows of {setting.data}."


def _held(setting: running.Setting, split: str) -> list[prepare.rows.Row]:
    config = running.config_of(setting, Key("shared", split, 0))
    return prepare.read_corpus(config).rows["dev"]


def _unfinished(
    finished: Iterable[Key], keys: Sequence[Key], names: Sequence[str]
) -> list[str]:
    """A sentence about recipes that have some of the splits of a seed, not all."""
    done: dict[tuple[str, int], int] = {}
    for key in {*finished} & {*keys}:
        done[key.recipe, key.seed] = done.get((key.recipe, key.seed), 0) + 1
    parts = [
        f"{recipe} seed {seed} ({count} of {len(names)})"
        for (recipe, seed), count in sorted(done.items())
        if count < len(names)
    ]
    return [f"Not all splits yet: {', '.join(parts)}."] if parts else []


def clear(folder: pathlib.Path) -> None:
    """Removes the tables of a folder, which may be of other rows."""
    for name in SECTIONS:
        for end in (".md", ".csv", "-differences.csv", ".png"):
            (folder / f"{name}{end}").unlink(missing_ok=True)


def join(folder: pathlib.Path) -> None:
    """Writes report.md: the tables that lie in a folder, one behind the other."""
    files = [folder / f"{name}.md" for name in SECTIONS]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    if texts:
        (folder / "report.md").write_text("\n".join(texts), encoding="utf-8")
