# SPDX-License-Identifier: Apache-2.0
"""Scripts over the package: train, evaluate, controls, demo."""
