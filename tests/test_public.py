# SPDX-License-Identifier: Apache-2.0
"""The surface: names, import cost, numbers that exist twice, and the README's session."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import edgelearn as el
from edgelearn import layers, optim, records, rules

ROOT = Path(__file__).parent.parent


def test_every_public_name_can_be_had_and_is_listed():
    assert el.__all__ == sorted(el.__all__)
    for name in el.__all__:
        assert getattr(el, name).__doc__
    assert set(el.__all__) <= set(dir(el))
    with pytest.raises(AttributeError, match="no attribute 'Lion'"):
        _ = el.Lion


def test_every_layer_is_public():
    assert set(layers.LAYERS) <= set(el.__all__)


def test_importing_edgelearn_loads_nothing_heavy():
    code = "import edgelearn, sys; print(sorted({'numpy', 'onnx', 'numba', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_training_process_stays_under_45_megabytes():
    code = """
import sys
import numpy as np, edgelearn as el
net = el.Net([el.Dense(128, "relu"), el.Dense(10)], input_shape=(784,))
x = np.sin(np.arange(784_000, dtype=np.float32)).reshape(1000, 784)
net.fit(x, np.arange(1000) % 10, batch=32, epochs=1, optimizer="sgd", rule="tp-l2", lr=0.01)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, *({"numba", "onnx", "onnxruntime"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == 1
    assert int(said[0]) <= 45 * 1024


def test_the_command_line_helps_without_importing_numpy():
    code = (
        "import sys; from edgelearn.cli import parser; text = parser().format_help(); "
        "assert 'exit codes' in text; print('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


ENUMS = [
    (records.Op, "EL_{}"),
    (rules.Objective, "EL_{}"),
    (rules.Codes, "EL_CODES_{}"),
    (rules.Loss, "EL_{}"),
    (optim.OptimizerKind, "EL_{}"),
    (optim.ScheduleKind, "EL_{}"),
]


@pytest.mark.parametrize(("enum", "pattern"), ENUMS)
def test_numbers_in_python_are_those_of_the_header(enum, pattern):
    from edgelearn._ffi import lib

    for member in enum:
        assert getattr(lib, pattern.format(member.name)) == member.value


def test_a_record_in_python_is_byte_for_byte_one_in_c():
    from edgelearn._ffi import ffi

    assert ffi.sizeof("el_record") == records.RECORD.itemsize == 64
    for name in records.RECORD.names:
        assert ffi.offsetof("el_record", name) == records.RECORD.fields[name][1]


def test_the_readme_session_gives_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 5
    assert result.failed == 0


def test_files_stay_of_one_room_and_public_functions_are_documented():
    for path in (ROOT / "edgelearn").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 350, f"{path.name} has outgrown its room"
        tree = ast.parse(text)
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        for node in (*tree.body, *(member for owner in classes for member in owner.body)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_contributing_names_every_file():
    tree = (ROOT / "CONTRIBUTING.md").read_text()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout: the list of tracked files is not known")
    for name in tracked:
        place = Path(name)
        if place.suffix in (".py", ".c", ".h", ".toml", ".def"):
            assert place.name in tree, f"{name} is missing in CONTRIBUTING.md"
