# SPDX-License-Identifier: Apache-2.0
"""Orthogonal adapters: h' = H_1 ... H_r h with reflectors H_i = I - 2 v_i v_i' / v_i'v_i (Householder Projector,
Song et al. 2023). r rows of numbers, no inverse; lengths and angles of features stay as they are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError

FloatArray = NDArray[np.float32]


class Householder:
    """See `Adapter`. `reflectors` (r, channels) begin as pairs of equal rows, each of which does nothing; the rank is
    even, so that the determinant is 1."""

    kind: ClassVar[str] = "householder"
    linear: ClassVar[bool] = True

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self.weights = weights
        self.rank, self.channels = weights["reflectors"].shape

    @classmethod
    def fresh(cls, channels: int, rank: int, rng: np.random.Generator) -> Householder:
        """Pairs of equal rows of length 1.

        Raises:
            UsageError: an odd rank.
        """
        if rank % 2:
            raise UsageError(f"reflectors come in pairs, so rank {rank} cannot be: choose {rank + 1}")
        made = cls({"reflectors": np.repeat(rng.normal(size=(rank // 2, channels)), 2, axis=0).astype(np.float32)})
        made.after_step()
        return made

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def apply(self, h: FloatArray) -> FloatArray:
        """The last reflector first."""
        out = h
        for v in self.weights["reflectors"][::-1]:
            out = _reflected(out, v)
        return out

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Of each reflector: the features are reflected back on the way, so that none are kept."""
        x, error = self.apply(h).reshape(-1, self.channels), dout.reshape(-1, self.channels)
        found = np.zeros_like(self.weights["reflectors"])
        for i, v in enumerate(self.weights["reflectors"]):
            x = _reflected(x, v)  # what this reflector saw
            norm, along, against = v @ v, x @ v, error @ v
            # y = x - (2 / n) (x v) v with n = v v.
            found[i] = -2 / norm * (error.T @ along + x.T @ against) + 4 / norm**2 * (along @ against) * v
            error = _reflected(error, v)
        return {"reflectors": found}

    def after_step(self) -> None:
        """Rows of length 1: a reflector does not depend on the length, its rounding does."""
        rows = self.weights["reflectors"]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def matrix(self) -> FloatArray:
        """(channels, channels): h' = matrix h."""
        return np.ascontiguousarray(self.apply(np.eye(self.channels, dtype=np.float32)).T)

    def project(self, h: FloatArray, units: int) -> FloatArray:
        """The first `units` coordinates of h': a projection down with orthonormal rows."""
        return self.apply(h)[..., :units]


def _reflected(x: FloatArray, v: FloatArray) -> FloatArray:
    along: FloatArray = x @ v
    out = along[..., None] * (v * (-2 / float(v @ v)))
    out += x
    return out


def reflectors_of(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """An orthogonal (n, n) matrix as n reflectors: rows v with 1 on the diagonal and 0 before it, tau (n,), signs (n,),
    so that matrix = (H_1 ... H_n) diag(signs), H_i = I - tau_i v_i v_i' (the packed form of LAPACK's geqrf, whose
    diagonal holds R and whose last tau may be 0).

    Raises:
        UsageError: a matrix that is not square and orthogonal.
    """
    n = len(matrix)
    if matrix.shape != (n, n) or np.abs(matrix.T @ matrix - np.eye(n)).max() > 1e-6:
        raise UsageError("only an orthogonal matrix is a product of reflectors: take Q of its QR decomposition")
    # numpy hands back the transpose of LAPACK's packed matrix: row i holds R before and v behind the diagonal.
    packed, tau = np.linalg.qr(matrix.astype(np.float64), mode="raw")
    rows = np.triu(packed, 1) + np.eye(n)
    return rows, tau, np.sign(np.diag(packed))


def product_of(rows: NDArray[np.float64], tau: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix that `reflectors_of` took apart."""
    out = np.diag(signs)
    for v, t in zip(rows[::-1], tau[::-1], strict=True):
        out = out - t * np.outer(v, v @ out)
    return out
