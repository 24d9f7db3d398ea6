# SPDX-License-Identifier: Apache-2.0
"""Labels of any kind as indices, and the names that they keep."""

from __future__ import annotations

import numpy as np
import pytest
from archives import saved

from edgelearn.errors import DataError
from edgelearn.inputs import data, labels


@pytest.mark.parametrize(
    ("train", "test", "classes", "indices"),
    [
        ([-1, 1, -1, 1, 1, 1], [1, -1, 1], ["-1", "1"], [1, 0, 1]),
        ([3, 7, 9, 3, 7, 9], [9, 3, 7], ["3", "7", "9"], [2, 0, 1]),
        (["cat", "dog", "cat", "dog", "ant", "cat"], ["dog", "ant", "cat"], ["ant", "cat", "dog"], [2, 0, 1]),
        ([False, True, False, True, True, True], [True, False, True], None, [1, 0, 1]),
        ([[0], [1], [0], [1], [1], [0]], [[1], [0], [1]], None, [1, 0, 1]),
    ],
)
def test_labels_become_indices_and_keep_their_names(tmp_path, train, test, classes, indices):
    loaded = data.load(saved(tmp_path, y_train=np.array(train), y_test=np.array(test)))
    assert classes == loaded.classes
    assert indices == loaded.y_test.tolist()


@pytest.mark.parametrize("key", ["label_names", "classes"])
def test_named_labels_keep_their_numbers_even_where_training_skips_one(tmp_path, key):
    names = {key: np.array(["a", "b", "c", "d"])}
    y = np.array([0, 3, 0, 3, 1, 1])
    loaded = data.load(saved(tmp_path, y_train=y, y_test=y[:3], **names))
    assert (loaded.classes, loaded.outputs) == (["a", "b", "c", "d"], 4)
    assert y.tolist() == loaded.y_train.tolist()
    assert loaded.arrays == {}


def test_labels_are_renumbered_by_their_names():
    y = np.array([0, 1, 1, 0], np.int32)
    assert labels.renumbered(y, ["dog", "ant"], ["ant", "cat", "dog"]).tolist() == [2, 0, 0, 2]
    assert labels.renumbered(y, ["dog", "ant", "unseen"], ["ant", "cat", "dog"]).tolist() == [2, 0, 0, 2]
    with pytest.raises(DataError, match="the net knows no class 'ant': it was trained on cat, dog"):
        labels.renumbered(y, ["dog", "ant"], ["cat", "dog"])


@pytest.mark.parametrize(
    ("train", "test", "trained", "said"),
    [
        ([0, 2, 0, 2], [1, 3], "0123", None),
        (["bee", "cat"], ["ant"], ["ant", "bee", "cat"], None),
        ([0, 2], [1], ["ant", "bee", "cat"], None),
        (["bee", "cow"], ["ant"], ["ant", "bee", "cat"], "'ant' in y_test of set never occurs"),
        ([0, 2], [4], "0123", "4 in y_test of set never occurs"),
    ],
)
def test_few_samples_for_a_trained_net_need_not_show_all_its_classes(train, test, trained, said):
    given = "set", np.array(train), np.array(test), None
    with pytest.raises(DataError, match="never occurs"):
        labels.encode(*given)
    if said:
        with pytest.raises(DataError, match=said):
            labels.encode(*given, trained)
        return
    y_train, y_test, classes = labels.encode(*given, trained)
    named = classes or [str(place) for place in range(len(trained))]
    places = [trained[one] if isinstance(one, int) else one for one in [*train, *test]]
    assert [named[i] for i in [*y_train, *y_test]] == places


def test_text_labels_follow_the_order_of_given_names(tmp_path):
    y = np.array(["b", "a", "b", "a", "b", "a"])
    loaded = data.load(saved(tmp_path, y_train=y, y_test=y[:3], label_names=np.array(["b", "a"])))
    assert loaded.y_train.tolist() == [0, 1, 0, 1, 0, 1]
