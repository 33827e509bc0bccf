# SPDX-License-Identifier: Apache-2.0
"""Room of rollout adapters and preference pairs; empty so far (see WORKSPACE.md)."""
