# SPDX-License-Identifier: Apache-2.0
"""Cuts the cffi declarations out of edgelearn.h and writes the C source of the extension. Run by CMake."""

import sys
from pathlib import Path

import cffi


def declarations(header: str) -> str:
    """The text between the two marks."""
    begin, end = "/* cdef: begin */", "/* cdef: end */"
    return header.split(begin)[1].split(end)[0]


def main(header: str, output: str) -> None:
    """Write `output` from the declarations in `header`."""
    ffi = cffi.FFI()
    ffi.cdef(declarations(Path(header).read_text()))
    ffi.set_source("edgelearn._ffi", '#include "edgelearn.h"')
    ffi.emit_c_code(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
