# SPDX-License-Identifier: Apache-2.0
"""What to install where a package is missing."""


def missing(room: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error that says which extra brings the package.

    Args:
      room: what was imported.
      extra: of `pyproject.toml`.
      error: what Python says.

    Returns:
      An error with the same name; the one that was given if it is one already, or if it
      is a module of this package that is missing.

    >>> lost = ModuleNotFoundError(name="flax")
    >>> str(missing("fulcra_jax.models", "models", lost))[:71]
    'fulcra_jax.models: the package flax is missing; pip install -e ".[model'
    """
    package = str(error.name).partition(".")[0]
    if package == "fulcra_jax" or str(error).startswith("fulcra_jax."):
        return error
    return ModuleNotFoundError(
        f'{room}: the package {package} is missing; pip install -e ".[{extra}]" in the '
        "checkout brings it.",
        name=package,
    )
