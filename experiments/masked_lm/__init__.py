# SPDX-License-Identifier: Apache-2.0
"""Masked-language-model pretraining on a folder: what is read, what is masked."""
