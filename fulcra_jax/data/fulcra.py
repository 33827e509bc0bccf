# SPDX-License-Identifier: Apache-2.0
"""FULCRA as a TensorFlow Datasets builder that needs no TensorFlow.

Two sources: a local folder of released files, and the published release by the
catalogue in third_party/. Examples are stored as array_record, because tfrecord, which
a builder of TFDS stores by default, needs TensorFlow; they are read by index:

    builder = local_builder("my/folder", data_dir="my/cache")
    builder.download_and_prepare()
    train = builder.as_data_source(split="train")
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fulcra_jax import _extras, catalogue, values

try:
    import tensorflow_datasets as tfds
except ModuleNotFoundError as error:
    raise _extras.missing("fulcra_jax.data.fulcra", "data", error) from error

from fulcra_jax.data import source
from fulcra_jax.data.rows import Policy, Row, write_rejects

_TEXTS = ("prompt", "response", "status", "query_source", "response_source", "file")
_FORMAT = "array_record"
_ARRAYS = ("items", "items_where", "labels", "where", "conflict")


@dataclasses.dataclass
class FulcraConfig(tfds.core.BuilderConfig):
    """Which rows, and how ambiguous labels are read."""

    folder: str = ""
    """A local folder or file; empty means the published release."""
    policy: Policy = dataclasses.field(default_factory=Policy)
    seed: int = 0
    """Seed of the split of files that are not split already."""


class Fulcra(tfds.core.GeneratorBasedBuilder):
    """(prompt, response, value labels) of Value FULCRA, split by prompt components."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Splits by near-duplicate prompt components."}  # noqa: RUF012
    BUILDER_CONFIGS = [FulcraConfig(name="release", description="As published.")]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Without a network, put the released .jsonl files in a folder and use "
        "fulcra_jax.data.fulcra.local_builder(folder, data_dir)."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        entry = catalogue.dataset("fulcra")
        V, I = len(values.BASIC), len(values.ITEMS)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{entry.title}. Licence: {entry.licence}.",
            homepage=entry.repository,
            citation=entry.paper,
            license=entry.licence,
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Text() for name in _TEXTS}
                | {
                    "items": tfds.features.Tensor(shape=(I,), dtype=np.int8),
                    "items_where": tfds.features.Tensor(shape=(I,), dtype=np.bool_),
                    "labels": tfds.features.Tensor(shape=(V,), dtype=np.float32),
                    "where": tfds.features.Tensor(shape=(V,), dtype=np.bool_),
                    "conflict": tfds.features.Tensor(shape=(V,), dtype=np.bool_),
                    # Both signs of a value may be given: [V, 2] for -1 and +1.
                    "signs": tfds.features.Tensor(shape=(V, 2), dtype=np.bool_),
                    "line": tfds.features.Scalar(dtype=np.int64),
                }
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self.builder_config
        if not isinstance(config, FulcraConfig):
            raise ValueError(
                f"fulcra.Fulcra: config is a {type(config).__name__}; it should be a "
                "FulcraConfig."
            )
        folder = config.folder or str(_download(dl_manager))
        corpus = source.read_folder(source.Folder(folder, config.seed), config.policy)
        if corpus.rejects:
            # Outside the prepared version, which appears only when it is complete.
            root = pathlib.Path(self.data_dir).parent
            root.mkdir(parents=True, exist_ok=True)
            path = root / "rejects.jsonl"
            path.unlink(missing_ok=True)
            write_rejects(path, corpus.rejects)
        return {name: _examples(rows) for name, rows in corpus.rows.items() if rows}

    def _generate_examples(self, rows: Sequence[Row]) -> Iterator[Any]:
        return _examples(rows)


def local_builder(
    folder: str | pathlib.Path,
    data_dir: str | pathlib.Path,
    policy: Policy = Policy(),
    seed: int = 0,
) -> Fulcra:
    """A builder over a local folder of released files.

    Args:
      folder: a folder of files in FULCRA's format, or one such file.
      data_dir: where TFDS keeps what it prepares.
      policy: how ambiguous labels are read.
      seed: seed of the split of files that are not split already.

    Returns:
      A builder that stores array_record. Its configuration is named after the contents
      of the files, so that a changed folder is never served from an old cache.

    Raises:
      FileNotFoundError: if the folder does not exist.
    """
    path = pathlib.Path(folder).resolve()
    if not path.exists():
        raise FileNotFoundError(
            f"fulcra.local_builder: {path} does not exist; give a folder of .jsonl "
            "files in FULCRA's format."
        )
    digest = hashlib.sha256(repr((policy, seed)).encode())
    for file in sorted(path.glob("*.json*")) if path.is_dir() else [path]:
        digest.update(f"{file.name} {catalogue.sha256_of(file)}".encode())
    config = FulcraConfig(
        name=f"local-{digest.hexdigest()[:12]}",
        description="A local folder of files in FULCRA's format.",
        folder=str(path),
        policy=policy,
        seed=seed,
    )
    return Fulcra(config=config, data_dir=str(data_dir), file_format=_FORMAT)


def read_release(release: source.Release, policy: Policy = Policy()) -> source.Corpus:
    """Rows of the published release, downloaded and prepared on first use.

    Raises:
      ConnectionError: if it cannot be downloaded; the message says what to do instead.
    """
    config: str | FulcraConfig = "release"
    if policy != Policy():
        digest = hashlib.sha256(repr(policy).encode()).hexdigest()[:8]
        config = FulcraConfig(name=f"release-{digest}", policy=policy)
    builder = Fulcra(config=config, data_dir=release.cache, file_format=_FORMAT)
    builder.download_and_prepare()
    return corpus_of(builder)


def corpus_of(builder: Fulcra) -> source.Corpus:
    """The rows of a prepared builder, by split.

    Raises:
      FileNotFoundError: if the builder is not prepared.
    """
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"{builder.data_dir}: the dataset is not prepared; call "
            "download_and_prepare() of its builder first."
        )
    rows: dict[str, list[Row]] = {
        # The decorator of tfds hides the signature.
        split: [row_of(e) for e in builder.as_data_source(split=split)]  # pyright: ignore[reportCallIssue]
        for split in builder.info.splits
    }
    sizes = ", ".join(f"{len(rows[split])} {split}" for split in rows)
    for split in source.SPLITS:
        rows.setdefault(split, [])
    return source.Corpus(rows, [], [f"TFDS {builder.info.full_name}: {sizes} rows"])


def row_of(example: dict[str, Any]) -> Row:
    """The row that an example of `Fulcra` was made of."""
    texts = {name: bytes(example[name]).decode("utf-8") for name in _TEXTS}
    arrays = {name: np.asarray(example[name]) for name in _ARRAYS}
    types = tuple(
        (value, sign)
        for value, signs in zip(values.BASIC, np.asarray(example["signs"]), strict=True)
        for sign, given in zip((-1, 1), signs.tolist(), strict=True)
        if given
    )
    return Row(**texts, **arrays, types=types, line=int(example["line"]))  # pyright: ignore[reportArgumentType]


def _examples(rows: Sequence[Row]) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, row in enumerate(rows):
        signs = np.zeros((len(values.BASIC), 2), bool)
        for value, sign in row.types:
            if sign:
                signs[values.BASIC.index(value), int(sign > 0)] = True
        yield (
            key,
            {name: getattr(row, name) for name in (*_TEXTS, *_ARRAYS)}
            | {"signs": signs, "line": row.line},
        )


def _download(dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
    """The release in a folder of its own, checked where a checksum is known."""
    entry = catalogue.dataset("fulcra")
    try:
        found = dl_manager.download(
            {file: entry.address(file) for file in entry.files[:1]}
        )
    except Exception as error:
        raise ConnectionError(
            f"fulcra.Fulcra: the release of {entry.name} could not be downloaded from "
            f"{entry.repository} ({type(error).__name__}); put its files in a folder "
            "and use that folder as the source."
        ) from error
    folder = (
        pathlib.Path(str(dl_manager.download_dir)) / f"{entry.name}-{entry.revision}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, path in found.items():
        known = entry.sha256.get(file)
        actual = catalogue.sha256_of(str(path))
        if known and known != actual:
            raise ValueError(
                f"fulcra.Fulcra: {file} has the checksum {actual}; the catalogue says "
                f"{known}."
            )
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(pathlib.Path(str(path)).resolve())
    return folder
