# SPDX-License-Identifier: Apache-2.0
"""Whole nets on every instruction set of this machine: the native half of the parity tests, once per set. Those tests
themselves run on the set that is chosen here, so it is not among them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgelearn._ffi import ffi, lib

from edgelearn.engines import load

NAMES = [
    ffi.string(lib.el_isa_name(isa)).decode()
    for isa in range(lib.EL_ISA_SCALAR, lib.EL_ISA_NEON + 1)
    if lib.el_isa_available(isa)
]
NAMES.remove(load("native").isa)


@pytest.mark.parametrize("file", ["test_parity.py", "test_parity_maps.py", "test_parity_recurrent.py"])
@pytest.mark.parametrize("name", NAMES)
def test_whole_nets_agree_with_the_oracle_on(name, file):
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "native", str(here / file)]
    environment = {**os.environ, "EDGELEARN_ISA": name}
    done = subprocess.run(command, cwd=here.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_an_instruction_set_that_is_not_here_is_refused(monkeypatch):
    from edgelearn.errors import UsageError

    monkeypatch.setenv("EDGELEARN_ISA", "sse")
    with pytest.raises(UsageError, match="unset it"):
        _ = load("native").isa
