# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories in Hugging Face's layout <-> parameter trees, torch-free."""

from fulcra_jax import _extras

try:
    from fulcra_jax.convert.checkpoint import load as load
except ModuleNotFoundError as error:
    raise _extras.missing("fulcra_jax.convert", "models", error) from error
from fulcra_jax.convert.checkpoint import load_encoder as load_encoder
from fulcra_jax.convert.checkpoint import save as save
from fulcra_jax.convert.pretraining import load_pretraining as load_pretraining
from fulcra_jax.convert.pretraining import save_pretraining as save_pretraining
