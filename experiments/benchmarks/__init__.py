# SPDX-License-Identifier: Apache-2.0
"""Speed and memory, side by side with other libraries in one run."""
