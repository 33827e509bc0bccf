# SPDX-License-Identifier: Apache-2.0
"""Training as parts: step, optimizer, shardings, checkpoints."""
