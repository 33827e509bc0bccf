# SPDX-License-Identifier: Apache-2.0
"""What the commands read and write."""

import pathlib


def check_new(path: str, flag: str) -> None:
    """Raises if a file to be written exists, or its folder does not; "" is no file."""
    if path and pathlib.Path(path).exists():
        raise FileExistsError(
            f"{path} exists; nothing is overwritten, give another {flag}."
        )
    if path and not pathlib.Path(path).parent.is_dir():
        raise FileNotFoundError(f"the folder of {flag} {path} does not exist.")
