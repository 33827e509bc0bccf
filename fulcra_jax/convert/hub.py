# SPDX-License-Identifier: Apache-2.0
"""The directory of a checkpoint: on this disk, or from Hugging Face's hub."""

import os
import re
from pathlib import Path
from typing import Any

from fulcra_jax.convert import weights

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def directory(source: str | os.PathLike, *, revision: str | None = None) -> Path:
    """The directory of a checkpoint.

    A string like `microsoft/deberta-v3-large` that is no path here is a name on the
    hub. Its `config.json` and the first kind of weights that it has (`weights.FILES`)
    are downloaded into the hub client's cache, or found there. Without a network the
    client tries for half a minute first; `HF_HUB_OFFLINE=1` spares that.

    Args:
      source: a directory, or OWNER/NAME.
      revision: a branch, tag or commit on the hub; its main branch if None.

    Returns:
      The directory.

    Raises:
      FileNotFoundError: if there is no such directory, and no such name on the hub or
        no way to it; the message says how to fetch the files by hand.
      ValueError: if there is such a directory, and a revision is given.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"convert.load: the path is {source!r}; it should be text or a Path."
        )
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"convert.load: {folder} is a directory; the revision {revision!r} is "
                "for names on the hub only."
            )
        inner = folder / "model"
        if not (folder / "config.json").exists() and (inner / "config.json").is_file():
            raise FileNotFoundError(
                f"convert.load: {folder} has no config.json; it is the directory of a "
                f"run, so give that of its model, {inner}."
            )
        return folder
    named = isinstance(source, str) and _HUB_NAME.fullmatch(source)
    if folder.is_file():
        raise FileNotFoundError(
            f"convert.load: {folder} is a file; give its directory, {folder.parent}."
        )
    if not named or os.path.lexists(folder):
        raise FileNotFoundError(f"convert.load: there is no directory {folder}.")
    return _downloaded(str(source), revision)


def _downloaded(name: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        why = (
            "downloading it needs the package huggingface_hub, which is missing (pip "
            "install huggingface_hub brings it, and the command hf)"
        )
        raise _advice(name, revision, why) from error

    offline = False

    def fetched(file: str) -> Path | None:
        """None where the repository, or without a network the cache, lacks it."""
        nonlocal offline
        try:
            found = huggingface_hub.hf_hub_download(
                name, file, revision=revision, local_files_only=offline
            )
        except errors.LocalEntryNotFoundError:
            offline = True  # The client has tried for half a minute; once is enough.
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # of the hub, of its HTTP client, of the disk
            raise _advice(name, revision, _reason(error, errors)) from error
        return Path(found)

    def lacking(what: str) -> FileNotFoundError:
        why = f"it has no {what}"
        if offline:
            why = (
                f"the cache has no {what} of it, and the hub cannot be reached (no "
                "network, or HF_HUB_OFFLINE is set)"
            )
        return _advice(name, revision, why)

    config = fetched("config.json")
    if config is None:
        raise lacking("config.json")
    for file in weights.FILES:
        found = fetched(file)
        if found is None:
            continue
        parts = weights.shards(found).values() if file.endswith(".json") else ()
        for part in dict.fromkeys(parts):
            if fetched(part) is None:
                raise lacking(part)
        if found.parent != config.parent:
            raise _advice(name, revision, "it changed while it was downloaded")
        return config.parent
    raise lacking(" or ".join(weights.FILES))


def _reason(error: Exception, errors: Any) -> str:
    match error:
        case errors.GatedRepoError():
            return "its terms have to be accepted on its page, after hf auth login"
        case errors.RepositoryNotFoundError():
            return "there is no such name, or it is shown only after hf auth login"
        case errors.RevisionNotFoundError():
            return "it has no such revision"
        case _:
            said = " ".join(str(error).split())[:150]
            return f"{type(error).__name__}: {said}"


def _advice(name: str, revision: str | None, why: str) -> FileNotFoundError:
    at = f" --revision {revision}" if revision else ""
    return FileNotFoundError(
        f"convert.load: there is no directory {name}, and it cannot be had from the "
        f"hub: {why}. Where it can be downloaded, run: hf download {name}{at} "
        '--exclude "*.h5" "*.ot" --local-dir DIR; then give DIR.'
    )
