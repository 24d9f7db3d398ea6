# SPDX-License-Identifier: Apache-2.0
"""Class folders of .npy samples: what trains, what is held out, what is named and refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.errors import DataError
from edgelearn.inputs import data


def class_folders(root, counts, value=0.0):
    """One sub-folder per class; sample i of class c is [c, i]."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            np.save(root / name / f"{i:03}.npy", np.array([number + value, i], np.float32))
    return root


def test_a_folder_holds_out_every_fifth_file_of_each_class(tmp_path):
    loaded = data.load(class_folders(tmp_path, {"yes": 11, "no": 5}))
    assert loaded.classes == ["no", "yes"]
    assert loaded.x_test.tolist() == [[1, 4], [0, 4], [0, 9]]
    assert loaded.y_test.tolist() == [0, 1, 1]
    assert (len(loaded.x_train), loaded.y_train.tolist()) == (13, [0] * 4 + [1] * 9)


def test_train_and_test_folders_are_respected(tmp_path):
    class_folders(tmp_path / "train", {"a": 2, "b": 3})
    class_folders(tmp_path / "test", {"b": 1}, value=7)
    loaded = data.load(tmp_path)
    assert (loaded.x_test.tolist(), loaded.y_test.tolist()) == ([[7, 0]], [1])
    assert len(loaded.x_train) == 5


def test_hidden_entries_and_loose_files_are_passed_over(tmp_path):
    class_folders(tmp_path, {"a": 5, "b": 5})
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    assert data.load(tmp_path).classes == ["a", "b"]


@pytest.mark.parametrize("value", [np.zeros(3, np.float32), np.zeros(2, np.uint8)])
def test_a_sample_of_another_shape_or_type_is_named(tmp_path, value):
    class_folders(tmp_path, {"a": 5, "b": 5})
    np.save(tmp_path / "b" / "002.npy", value)
    with pytest.raises(DataError, match=rf"b/002\.npy holds {value.dtype} of shape \({len(value)},\)"):
        data.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"noise", b"\x93NUMPY\x01\x00\x46\x00{'descr': ["])
def test_a_broken_sample_is_named(tmp_path, content):
    class_folders(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "003.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a/003\.npy"):
        data.load(tmp_path)


@pytest.mark.parametrize("value", [np.array([1, np.nan], np.float32), np.array([{}, 1], object), np.array(["a", "b"])])
def test_a_sample_that_is_not_finite_numbers_is_named(tmp_path, value):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            np.save(tmp_path / name / f"{i}.npy", value)
    with pytest.raises(DataError, match=r"a/0\.npy"):
        data.load(tmp_path)


def test_a_file_of_an_unknown_kind_is_named(tmp_path):
    class_folders(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "b" / "notes.txt").write_text("hm")
    with pytest.raises(DataError, match=r"b/notes\.txt is not a sample: convert it to \.npy"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({}, "no class folders"),
        ({"a": 5, "b": 0}, "class folder .*b is empty"),
        ({"a": 5}, "all labels"),
        ({"a": 4, "b": 4}, "nothing to test on"),
        ({"train/a": 1, "train/b": 1, "test/c": 1}, "'c' in y_test"),
    ],
)
def test_folders_that_cannot_be_learned_are_refused(tmp_path, folders, words):
    with pytest.raises(DataError, match=words):
        data.load(class_folders(tmp_path, folders))
