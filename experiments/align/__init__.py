# SPDX-License-Identifier: Apache-2.0
"""The third experiment of the paper: move a language model toward a target vector."""
