# SPDX-License-Identifier: Apache-2.0
"""Train neural networks on the board that uses them, with forward passes only.

Names are loaded when first used (PEP 562), so that importing edgelearn costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Activation": "layers",
    "Adapted": "adaptation.adapted",
    "Adwin": "learning.drift",
    "AvgPool": "layers",
    "BatchNormalization": "layers",
    "Board": "costs.boards",
    "BrokenFileError": "errors",
    "Budget": "costs.budget",
    "BudgetError": "errors",
    "Cascade": "retrieval",
    "Client": "client",
    "Conv1D": "layers",
    "Conv2D": "layers",
    "DaemonError": "errors",
    "DataError": "errors",
    "Dense": "layers",
    "DepthwiseConv2D": "layers",
    "Dropout": "layers",
    "EdgeClassifier": "sklearn",
    "EdgeRegressor": "sklearn",
    "EdgelearnError": "errors",
    "Embedding": "layers",
    "Event": "learning.events",
    "FeedForward": "layers",
    "Flatten": "layers",
    "Funnel": "retrieval",
    "GRU": "layers",
    "Gate": "learning.gate",
    "GlobalAvgPool": "layers",
    "Image": "inputs.images",
    "Input": "inputs.frontend",
    "LSTM": "layers",
    "LayerNormalization": "layers",
    "Learner": "learner",
    "LearningError": "errors",
    "Masking": "layers",
    "Matryoshka": "mrl",
    "MaxPool": "layers",
    "ModelError": "errors",
    "MultiHeadAttention": "layers",
    "Nested": "nested",
    "Net": "net",
    "OutputError": "errors",
    "PageHinkley": "learning.drift",
    "Plan": "costs.plan",
    "PositionEmbedding": "layers",
    "Prediction": "learning.prediction",
    "Progress": "training.progress",
    "RecursiveHead": "recursive",
    "Reshape": "layers",
    "Residual": "layers",
    "RidgeHead": "heads",
    "SimpleRNN": "layers",
    "Sound": "inputs.sounds",
    "Step": "learning.step",
    "Store": "store",
    "UsageError": "errors",
    "Verdict": "learning.gate",
    "VerificationError": "errors",
    "Version": "store.versions",
    "adapt": "adaptation",
    "byte_tokens": "inputs.texts",
    "export_adapted": "adaptation.exporting",
    "load": "loading",
    "with_depth": "adaptation.stacks",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgelearn' has no attribute '{name}'")
    value = getattr(import_module(f"edgelearn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
