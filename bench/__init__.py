# SPDX-License-Identifier: Apache-2.0
"""Measures edgelearn beside its peers: `python -m bench.step`, `python -m bench.accuracy`."""
