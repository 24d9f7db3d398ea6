# SPDX-License-Identifier: Apache-2.0
"""The fit loop and its parts: recipe, stages, checkpoints, history and what of it is drawn."""
