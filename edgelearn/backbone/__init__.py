# SPDX-License-Identifier: Apache-2.0
"""Frozen backbones of any kind behind one face: nets of our own, ONNX files, TFLite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgelearn.backbone.taps import Backbone, Head, Tap, class_names, features
from edgelearn.errors import ModelError

__all__ = ["Backbone", "Head", "Tap", "class_names", "features", "load"]


def load(path: str | Path, taps: tuple[str, ...] = ()) -> Backbone:
    """The backbone in a .safetensors model of ours, an .onnx or a .tflite file; `taps` name places of an ONNX graph.

    Raises:
        ModelError: nothing there, damaged, of a kind that cannot be adapted, or taps that do not exist.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in LOADERS:
        raise ModelError(f"{path} is no backbone: give a file that ends in {', '.join(LOADERS)}")
    return LOADERS[suffix](Path(path), taps)


def _own(path: Path, taps: tuple[str, ...]) -> Backbone:
    from edgelearn import loading
    from edgelearn.backbone.own import OwnBackbone

    if taps:
        raise ModelError("a net of ours has a tap behind every block: leave the taps out, or choose among its own")
    return OwnBackbone(loading.load(path), Path(path).name)


def _onnx(path: Path, taps: tuple[str, ...]) -> Backbone:
    try:
        from edgelearn.backbone import onnx
    except ImportError as error:
        raise ModelError(f"an .onnx backbone needs a package ({error}): pip install 'edgelearn[onnx]'") from error
    return onnx.load(_bytes(path), path.name, taps)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from error


def _tflite(path: Path, taps: tuple[str, ...]) -> Backbone:
    from edgelearn.backbone.tflite import TfliteBackbone

    if taps:
        raise ModelError("a .tflite backbone has one tap, at what its head reads: leave the taps out")
    return TfliteBackbone(_bytes(path), path.name)


LOADERS: dict[str, Callable[[Path, tuple[str, ...]], Backbone]] = {
    ".safetensors": _own,
    ".onnx": _onnx,
    ".tflite": _tflite,
}
"""What opens a backbone, by suffix."""
