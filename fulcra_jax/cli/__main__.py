# SPDX-License-Identifier: Apache-2.0
"""`python -m fulcra_jax.cli`: the `fulcra` command."""

import sys

from fulcra_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
