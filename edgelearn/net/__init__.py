# SPDX-License-Identifier: Apache-2.0
"""The net that people hold, and what joins its parts: structure, plan, fit, submodels, export."""

from __future__ import annotations

from edgelearn.net.net import Net

__all__ = ["Net"]
