# SPDX-License-Identifier: Apache-2.0
"""The command line of the encoder benchmark; argparse, so that it runs anywhere."""

import argparse
from collections.abc import Callable

from experiments.benchmarks.encoder_ours import MODELS, Mode

VARIANTS = (
    "skew", "gather", "whole", "off", "plain", "cudnn", "bfloat16",
    "eager", "compiled", "flash",
)  # fmt: skip
TORCH = ("eager", "compiled", "flash")
MOST_LENGTH, MOST_TOKENS = 65536, 2**22
MOST_SECONDS = 86400.0
SWEEP = ((16, 64), (8, 128), (4, 256), (2, 512), (1, 1024), (1, 2048))
Shape = tuple[int, int]


def shapes(text: str) -> list[Shape]:
    """Shapes as they stand on the command line.

    >>> shapes("8x128,4x256")
    [(8, 128), (4, 256)]
    """
    found = []
    for part in filter(None, text.split(",")):
        numbers = part.split("x")
        if len(numbers) != 2 or not all(map(_counts, numbers)):
            raise argparse.ArgumentTypeError(
                f"{part!r} is no shape; expected BATCHxLENGTH, for example 8x128."
            )
        batch, length = map(int, numbers)
        if length > MOST_LENGTH or batch * length > MOST_TOKENS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is too large; expected a length of at most {MOST_LENGTH} "
                f"and at most {MOST_TOKENS} tokens."
            )
        found.append((batch, length))
    return found


def _counts(text: str) -> bool:
    """Whether it is a positive number of at most ten ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0


def one_or_more(*known: str) -> Callable[[str], list[str]]:
    """A reader of names between commas."""

    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                listed = ", ".join(known)
                raise argparse.ArgumentTypeError(f"{name!r} is none of: {listed}.")
        return names

    return read


def skipped(text: str) -> list[str]:
    """Variants to leave out; "torch" stands for all of its own.

    >>> skipped("off,torch")
    ['off', 'eager', 'compiled', 'flash']
    """
    names = one_or_more(*VARIANTS[1:], "torch")(text)
    return [name for name in VARIANTS if name in names or _of_torch(name, names)]


def _of_torch(name: str, names: list[str]) -> bool:
    return "torch" in names and name in TORCH


def parser(description: str) -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.encoder",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add("--model", choices=list(MODELS), default="base", help="the shapes")
    add("--layers", type=int, default=4, help="layers; ratios hardly depend on it (4)")
    add(
        "--shapes",
        type=shapes,
        default="8x128,4x256,4x512",
        help="batch x length, between commas (8x128,4x256,4x512)",
    )
    add(
        "--short",
        type=shapes,
        default="1x16,1x32",
        help="measured forward only; '' for none (1x16,1x32)",
    )
    add("--sweep", action="store_true", help="add lengths 64 to 2048")
    add(
        "--modes",
        type=one_or_more("forward", "training"),
        default="forward,training",
        help="forward, training or both (both)",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of all")
    add(
        "--bfloat16",
        choices=("auto", "yes", "no"),
        default="auto",
        help="ours in bfloat16 beside float32; auto: on a CPU with AMX",
    )
    add(
        "--skip",
        type=skipped,
        default="",
        help=f"variants to leave out: {', '.join(VARIANTS[1:])}; torch: the last three",
    )
    add("--no-memory", dest="memory", action="store_false", help="no module memory")
    add("--rounds", type=int, default=7, help="quiet rounds that count (7)")
    add("--retries", type=int, default=7, help="rounds repeated for foreign load (7)")
    add(
        "--foreign",
        type=float,
        default=0.05,
        help="most share of the processors that others may use in a round (0.05)",
    )
    add("--padded", type=float, default=0.25, help="share of rows that are padded")
    add(
        "--least-seconds",
        type=float,
        default=0.3,
        help="a variant is repeated in a round until this time is filled (0.3)",
    )
    add(
        "--compile-limit",
        type=float,
        default=300.0,
        help="most seconds that torch.compile may take for a program (300)",
    )
    add("--out", default="runs/benchmark-encoder", help="a directory")
    return flags


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if a number is out of range or there is nothing to do."""
    for name, least in (("layers", 1), ("rounds", 1), ("retries", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(
                f"benchmarks.encoder: {name} is {getattr(arguments, name)}; expected "
                f"at least {least}."
            )
    for name in ("padded", "foreign"):
        if not 0.0 <= getattr(arguments, name) <= 1.0:
            raise ValueError(
                f"benchmarks.encoder: {name} is {getattr(arguments, name)}; expected a "
                "share in [0, 1]."
            )
    for name in ("least_seconds", "compile_limit"):
        if not 0.0 <= getattr(arguments, name) <= MOST_SECONDS:
            raise ValueError(
                f"benchmarks.encoder: {name} is {getattr(arguments, name)}; expected "
                f"seconds in [0, {MOST_SECONDS:.0f}]."
            )
    if not cells_of(arguments):
        raise ValueError("benchmarks.encoder: there is no shape or mode to measure.")


def cells_of(arguments: argparse.Namespace) -> list[tuple[Shape, Mode]]:
    """What is measured; short texts have no training step."""
    shapes = list(arguments.shapes)
    if arguments.sweep:
        shapes += [shape for shape in SWEEP if shape not in shapes]
    cells = [(shape, mode) for shape in shapes for mode in arguments.modes]
    if "forward" in arguments.modes:
        short = [shape for shape in arguments.short if shape not in shapes]
        cells += [(shape, "forward") for shape in short]
    return cells
