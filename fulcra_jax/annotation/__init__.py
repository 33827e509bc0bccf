# SPDX-License-Identifier: Apache-2.0
"""The human-LLM annotation loop: so far a reader of annotated files."""
