# SPDX-License-Identifier: Apache-2.0
"""A float32 ONNX file of another tool as int8, by onnxruntime's own quantiser: QDQ, per channel, calibrated.

Job (JSON) on stdin: source, samples, onnx.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Samples one by one, as the file takes them."""

    def __init__(self, name: str, shape: list[int], x: Any) -> None:
        rows = x if list(x.shape[1:]) == shape else np.moveaxis(x, -1, 1)
        self.left = iter([{name: np.ascontiguousarray(row[None])} for row in rows])

    def get_next(self) -> Any:
        return next(self.left, None)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Fold and fuse first, as the documentation of onnxruntime says, then quantise. Shapes are known without sympy."""
    logging.disable(logging.WARNING)
    source = InferenceSession(job["source"], providers=["CPUExecutionProvider"]).get_inputs()[0]
    with tempfile.TemporaryDirectory() as name:
        ready = str(Path(name) / "ready.onnx")
        quant_pre_process(job["source"], ready, skip_symbolic_shape=True)
        reader = Samples(source.name, source.shape[1:], np.load(job["samples"]))
        settings = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(ready, job["onnx"], reader, QuantFormat.QDQ, **settings)
    return {"bytes": Path(job["onnx"]).stat().st_size}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
