# SPDX-License-Identifier: Apache-2.0
"""Room of the human-LLM annotation loop; empty so far (see WORKSPACE.md)."""
