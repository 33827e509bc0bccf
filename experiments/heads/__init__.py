# SPDX-License-Identifier: Apache-2.0
"""The comparison of value heads: variants, cells, running them, summing them up."""
