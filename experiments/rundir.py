# SPDX-License-Identifier: Apache-2.0
"""The directory of a run: what was asked, on what, and what came of it.

config.py        the configuration, as the Python expression that makes it
run.json         command, commit, versions, device, fingerprint of the data
metrics.jsonl    one JSON object a line: training steps and looks at the dev split
rejects.jsonl    rows that could not be read, with file, line and reason
tokenizer/       the tokenizer, as a Hugging Face directory
checkpoints/     states to resume from
model/           the trained evaluator: config.json, model.safetensors, tokenizer
model-best/      that of the best look at dev, with keep_best
tensorboard/     with that writer; `tensorboard --logdir` of it (a package of its own)
profile/         with --profile

A line of metrics.jsonl holds the time (seconds since 1970), the number of steps done
and the split. "dev" has the figures of `config.FIGURES`, "train"

loss             mean over the labelled cells of this step's batch alone
grad_norm        global norm of its gradient, before clipping
learning_rate    of the head; layers below it have less with optimizer.layer_decay
examples_per_s, tokens_per_s
                 since the line before, on all devices; without compilation and looks
                 at dev, with what checkpoints hold up
padding          share of the batches' places that hold no token
input_wait       share of the time in which the loop waited for the next batch
ceiling_share    FLOP/s of the model over those of a large matrix product, measured at
                 the start, times the devices; see `training.ceiling.evaluator_flops`
device_memory_mib, device_peak_mib
                 of the fullest device of process 0; on a CPU resident_mib and
                 resident_peak_mib of the process
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from experiments.config import Config, load_config, save_config
from fulcra_jax import catalogue
from fulcra_jax.data.digest import fingerprint as fingerprint
from fulcra_jax.data.rows import Row

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
)


def default_run(recipe: str, root: pathlib.Path = pathlib.Path("runs")) -> pathlib.Path:
    """A directory that does not exist yet: runs/RECIPE-DATE-TIME."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = root / f"{recipe}-{stamp}", 1
    while path.exists():
        number += 1
        path = root / f"{recipe}-{stamp}-{number}"
    return path


def check_free(path: pathlib.Path) -> None:
    """Raises FileExistsError if the directory holds anything."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; expected the name of a directory.")
    if path.exists() and any(path.iterdir()):
        advice = "Give a new directory"
        if (path / "run.json").is_file():
            advice += f", or continue that run with --resume {path}"
        raise FileExistsError(
            f"{path} exists and is not empty; a run never overwrites another. {advice}."
        )


@contextlib.contextmanager
def claimed(path: pathlib.Path) -> Iterator[None]:
    """Makes the directory and holds it, so that no second training writes into it.

    Raises:
      ValueError: if another process holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{path} is in use: another process trains there; wait for its end, "
                "or stop it."
            ) from None
        except OSError:
            pass  # a file system without locks: as before there were any
        yield
    finally:
        os.close(handle)


def create(
    path: pathlib.Path,
    config: Config,
    rows: Sequence[Row],
    notes: Sequence[str],
    save_more: Callable[[], None],
) -> None:
    """Makes the directory of a new run: whole, or not at all.

    Args:
      path: holds nothing.
      config: of the run.
      rows: to train on.
      notes: about the data.
      save_more: writes the tokenizer, and what else belongs to the beginning.

    Raises:
      FileExistsError: if it holds anything already.
      OSError: if it cannot be written; nothing is left of it.
    """
    check_free(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        save_config(path / "config.py", config)
        save_more()
        entries = about() | {
            "data": list(notes),
            "data_sha256": fingerprint(rows, items=config.loss.items > 0),
            "config_sha256": catalogue.sha256_of(path / "config.py"),
            "tokenizer_sha256": _tokenizer_files(path),
        }
        write_whole(path / "run.json", entries)
    except BaseException as error:
        for found in path.iterdir():
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()
        if not isinstance(error, OSError):
            raise
        raise OSError(
            f"{path}: the run could not be begun ({error.strerror or error}); nothing "
            "is left of it, give it room on a disk that can be written to."
        ) from error


def about(packages: Sequence[str] = ()) -> dict[str, Any]:
    """How and on what this process runs: command, commit, versions, devices."""
    return {
        "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
        "commit": _commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name) for name in (*_PACKAGES, *packages)
        },
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
    }


def reopen(path: pathlib.Path) -> Config:
    """The configuration of a run that was begun.

    Raises:
      FileNotFoundError: if the directory is no run.
    """
    if not (path / "config.py").is_file() or not (path / "run.json").is_file():
        raise FileNotFoundError(
            f"{path} is no run: it holds no config.py and run.json; give the "
            "directory of a run that was begun by experiments.train."
        )
    return load_config(path / "config.py")


def has_checkpoint(path: pathlib.Path) -> bool:
    """Whether a run has a checkpoint to go on from; half-written ones do not count."""
    return any(found.name.isdigit() for found in (path / "checkpoints").glob("*"))


def check_data(path: pathlib.Path, config: Config, rows: Sequence[Row]) -> None:
    """Raises ValueError if the training rows are not those the run was begun with."""
    begun = _begun(path, "data_sha256")
    now = fingerprint(rows, items=config.loss.items > 0)
    if begun != now:
        raise ValueError(
            f"{path}: the training rows have changed since the run was begun (checksum "
            f"{now[:12]}, then {begun[:12]}); restore the files or begin a new run."
        )


def check_config(path: pathlib.Path) -> None:
    """Raises ValueError if config.py is not the one the run was begun with."""
    if catalogue.sha256_of(path / "config.py") != _begun(path, "config_sha256"):
        raise ValueError(
            f"{path}/config.py has been changed since the run was begun; restore it, "
            "or begin a new run."
        )


def check_tokenizer(path: pathlib.Path) -> None:
    """Raises ValueError if the tokenizer is not the one the run was begun with."""
    try:
        begun = json.loads((path / "run.json").read_text("utf-8"))["tokenizer_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # of version 0.1, or damaged, which is said of another entry
    now = _tokenizer_files(path)
    for name in begun:
        if now.get(name) != begun[name]:
            what = "has been changed" if name in now else "is missing"
            raise ValueError(
                f"{path}/tokenizer/{name} {what} since the run was begun; restore it, "
                "or begin a new run."
            )


def _tokenizer_files(path: pathlib.Path) -> dict[str, str]:
    """The checksums of the tokenizer's files."""
    files = sorted((path / "tokenizer").glob("*"))
    return {file.name: catalogue.sha256_of(file) for file in files if file.is_file()}


def _begun(path: pathlib.Path, entry: str) -> str:
    """What run.json holds of the beginning of a run."""
    try:
        held = json.loads((path / "run.json").read_text(encoding="utf-8"))[entry]
    except (ValueError, KeyError, TypeError, RecursionError):
        held = None
    if not isinstance(held, str):
        raise ValueError(
            f"{path}/run.json is damaged: it has no {entry}; the run cannot be resumed."
        )
    return held


def begin(path: pathlib.Path, entries: dict[str, Any]) -> None:
    """Writes what is begun in a folder, or checks that it is the same as what was.

    Args:
      path: a file of JSON; its folder is made.
      entries: what decides the numbers.

    Raises:
      FileExistsError: if the folder holds something without that file.
      ValueError: if the file holds other entries.
    """
    entries = json.loads(json.dumps(entries))
    if not path.is_file():
        check_free(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, entries)
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise ValueError(f"{path}: is damaged; begin in a new folder.")
    differing = _difference(held, entries)
    if differing:
        name, was, now = differing
        raise ValueError(
            f"{path.parent}: was begun with another {name}: {was!r:.80}, now "
            f"{now!r:.80}; give a new folder, or what it was begun with."
        )


def _difference(held: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first entry that differs: its name, what it was and what it is."""
    if isinstance(held, dict) and isinstance(now, dict):
        for field in now:
            inner = f"{name}.{field}" if name else field
            found = _difference(held.get(field), now[field], inner)
            if found:
                return found
        return None
    return None if held == now else (name, held, now)


def write_json(path: pathlib.Path, entries: Any) -> None:
    """Writes JSON that a person can read."""
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write_whole(path: pathlib.Path, entries: Any) -> None:
    """Writes JSON; the file that was there stays until the new one is whole."""
    half = path.with_name(path.name + ".part")
    write_json(half, entries)
    half.replace(path)


def _commit() -> str:
    """The commit of the working tree, with "+" when it was changed; "" outside git."""
    try:
        run = lambda *words: subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
