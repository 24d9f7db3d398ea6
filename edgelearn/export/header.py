# SPDX-License-Identifier: Apache-2.0
"""A net as a C header: layer records and weights for the core alone, and a program around them that answers samples.

Numbers are hexadecimal floats, so that the compiler gives back the very bits. The same file can be read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.graph import FloatArray, Graph
from edgelearn.records import RECORD

_METADATA = "/* metadata "
_PER_LINE = 8

_EXAMPLE = """
/* cc -DNAME_EXAMPLE -Inative/include -x c NAME.h -x none libedgelearn_core.a -lm -lpthread -o NAME
 * reads samples of INPUTS numbers from its standard input, and prints OUTPUTS numbers for each. */
#ifdef NAME_EXAMPLE
#include <stdio.h>
#include <stdlib.h>

int main(void) {
  static float x[PREFIX_INPUTS], y[PREFIX_OUTPUTS];
  el_config config = {.rule = {.targets = PREFIX_OUTPUTS, .group = 1}, .batch = 1, .threads = 1};
  el_samples sample = {.x = x, .x_type = EL_FLOAT32, .n = 1};
  el_sizes sizes;
  el_net *net;
  if (el_net_size(NAME_records, PREFIX_RECORDS, &config, &sizes) != EL_OK) return 1;
  void *memory = aligned_alloc(64, (size_t)(sizes.arena + 63) / 64 * 64);
  if (memory == NULL || el_net_init(&net, memory, (size_t)sizes.arena, NAME_records, PREFIX_RECORDS,
                                    (float *)NAME_params, PREFIX_PARAMS, &config) != EL_OK) return 1;
  for (;;) {
    for (size_t i = 0; i < PREFIX_INPUTS; i++)
      if (scanf("%f", &x[i]) != 1) return el_net_close(net), free(memory), 0;
    if (el_net_forward(net, &sample, y) != EL_OK) return 1;
    for (size_t i = 0; i < PREFIX_OUTPUTS; i++) printf("%.9g%c", (double)y[i], i + 1 < PREFIX_OUTPUTS ? ' ' : '\\n');
  }
}
#endif
"""


def encode(
    stem: str, graph: Graph, flat: FloatArray, metadata: Mapping[str, str], version: str, channels_first: bool = False
) -> bytes:
    """The header of a net whose file is called `stem`; samples are channels last. `metadata` goes with it as a comment,
    with the shape of samples as the data holds them.

    Raises:
        ModelError: weights that are not finite.
    """
    if not np.isfinite(flat).all():
        raise ModelError("the net has weights that are not finite: load or train it again")
    shape = graph.input_shape
    raw = (shape[-1], *shape[:-1]) if channels_first and len(shape) > 1 else shape
    about = {**metadata, "shape": json.dumps(raw), "turned": json.dumps(raw != shape or channels_first)}
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"net_{name}"
    return "\n".join(_lines(name, graph, flat, about, version)).encode()


def _lines(name: str, graph: Graph, flat: FloatArray, about: Mapping[str, str], version: str) -> Iterator[str]:
    prefix, outputs = name.upper(), int(graph.outputs)
    counts = {"INPUTS": graph.features, "OUTPUTS": outputs, "RECORDS": len(graph.records), "PARAMS": flat.size}
    yield f"/* A net as C arrays, by edgelearn {version}: for the core, which native/include/edgelearn.h declares."
    yield f" * Samples are {' x '.join(map(str, graph.input_shape))} floats, channels last, not scaled. */"
    yield _METADATA + json.dumps(about).replace("*/", "*\\/") + " */"  # a JSON string may hide the end of a comment
    yield f'#ifndef {prefix}_H\n#define {prefix}_H\n\n#include "edgelearn.h"\n'
    yield from (f"#define {prefix}_{key} {value}" for key, value in counts.items())
    yield f"\nstatic const el_record {name}_records[{prefix}_RECORDS] = {{"
    yield from (f"  {_record(record)}," for record in graph.records)
    yield f"}};\n\nstatic const float {name}_params[{prefix}_PARAMS] = {{"
    yield from _numbers(flat)
    yield "};"
    example = _EXAMPLE.replace("PREFIX", prefix).replace("NAME", name)
    yield example.replace(" INPUTS ", f" {graph.features} ").replace(" OUTPUTS ", f" {outputs} ")
    yield "#endif\n"


def _record(record: np.void) -> str:
    """A record as a C initialiser."""
    parts = []
    for key in RECORD.names or ():
        values = np.atleast_1d(record[key])
        texts = [_float(v) if values.dtype.kind == "f" else f"{v}" for v in values.tolist()]
        parts.append(texts[0] if len(texts) == 1 else f"{{{', '.join(texts)}}}")
    return f"{{{', '.join(parts)}}}"


def _numbers(flat: FloatArray) -> Iterator[str]:
    for start in range(0, flat.size, _PER_LINE):
        yield "  " + " ".join(f"{_float(v)}," for v in flat[start : start + _PER_LINE].tolist())


def _float(value: float) -> str:
    """A hexadecimal float of single precision, without the digits that are always zero."""
    digits, _, power = value.hex().partition("p")
    return f"{digits.rstrip('0') if '.' in digits else digits}p{power}f".replace(".p", ".0p")


def read(text: str) -> tuple[NDArray[np.void], FloatArray, dict[str, str]]:
    """Records, parameters and metadata of a header that `encode` made.

    Raises:
        ValueError: another file, or a damaged one.
    """
    metadata = next((line for line in text.splitlines() if line.startswith(_METADATA)), None)
    if metadata is None:
        raise ValueError("no header of edgelearn")
    records = [_values(line) for line in _array(text, "el_record").splitlines()]
    table = np.zeros(len(records), RECORD)
    for row, values in zip(table, records, strict=True):
        for key in RECORD.names or ():
            count = RECORD[key].shape[0] if RECORD[key].shape else 1
            row[key] = values[:count] if count > 1 else values[0]
            del values[:count]
    params = np.array(_values(_array(text, "float")), np.float32)
    return table, params, json.loads(metadata[len(_METADATA) : -len(" */")])


def _array(text: str, kind: str) -> str:
    """What stands between the braces of the array of that type."""
    found = re.search(rf"static const {kind} \w+\[\w+\] = {{\n(.*?)\n}};", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no array of {kind}")
    return found[1]


def _values(text: str) -> list[Any]:
    words = re.findall(r"[^\s,{}]+", text)
    return [float.fromhex(word.removesuffix("f")) if "0x" in word else int(word) for word in words]
