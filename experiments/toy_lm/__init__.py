# SPDX-License-Identifier: Apache-2.0
"""A language model small enough to be aligned on two CPU cores in minutes.

It stands in for the LLM in `experiments.align`: it speaks the phrases of the embedded
corpus and nothing else. The loop around it is as plain as it can be, because its
purpose is to exercise the objectives; at LLM scale the loop is Tunix's.
"""
