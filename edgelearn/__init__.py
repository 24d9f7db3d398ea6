# SPDX-License-Identifier: Apache-2.0
"""Train neural networks on the board that uses them, with forward passes only.

Names are loaded when first used (PEP 562), so that importing edgelearn costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
