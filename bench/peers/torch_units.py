# SPDX-License-Identifier: Apache-2.0
"""Embeddings, positions, attention, feed-forward and residual units in PyTorch, started as ours are.

Sequences and maps come channels first, as everywhere in the peer; inside, features are last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]


def uniform(values: Tensor, variance: float) -> None:
    """Fill with zero-mean values of that variance."""
    bound = math.sqrt(3 * variance)
    nn.init.uniform_(values, -bound, bound)


def linear(inputs: int, units: int, bias: bool, gain: float = 1.0) -> nn.Linear:
    """A product whose outputs have `gain` times the variance of its inputs."""
    module = nn.Linear(inputs, units, bias)
    uniform(module.weight.data, gain / inputs)
    if bias:
        nn.init.zeros_(module.bias)
    return module


class Table(nn.Module):
    """A parameter that lies in our nets as it does here."""

    def __init__(self, shape: Shape, variance: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        uniform(self.weight.data, variance)


class Embedding(Table):
    """(n, steps) whole numbers to (n, features, steps)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[x.long()].movedim(-1, 1)


class Positions(Table):
    """Adds its table (steps, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.T


class LastNorm(nn.LayerNorm):
    """Over the features of each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Attention(nn.Module):
    """Self-attention; queries, keys and values of each head lie beside each other."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.output = linear(width, 3 * width, bias), linear(width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        q, k, v = self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.output(mixed.transpose(1, 2).flatten(2)).movedim(-1, 1)


class FeedForward(nn.Module):
    """Two products with an activation between them, over the features of each position."""

    def __init__(self, width: int, units: int, bias: bool, activation: Sequence[nn.Module]) -> None:
        super().__init__()
        self.hidden, self.output = linear(width, units, bias, 2.0), linear(units, width, bias)
        self.activation = nn.Sequential(*activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.activation(self.hidden(x.movedim(1, -1)))).movedim(-1, 1)


class Residual(nn.Module):
    """x + what its layers make of it."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
