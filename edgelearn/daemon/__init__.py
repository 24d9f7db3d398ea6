# SPDX-License-Identifier: Apache-2.0
"""The daemon: answers by the Open Inference Protocol, takes samples, trains in a process of its own, keeps versions.

One process serves, on asyncio and h11; it opens its memory once and stays small. Nothing here is imported by the rest
of edgelearn except by the command line.
"""
