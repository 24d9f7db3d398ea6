# SPDX-License-Identifier: Apache-2.0
"""el.Net as its users hold it."""

import pickle

import numpy as np
import pytest

import edgelearn as el


def small(**settings):
    return el.Net([el.Dense(16, "relu"), el.Dense(4)], input_shape=(6,), **settings)


@pytest.mark.parametrize("rule", ["tp-l2", "tp-l1", "tp-huber", "tp-ce", "readout"])
@pytest.mark.parametrize("schedule", ["interleaved", "sequential"])
def test_every_rule_learns_a_separable_task_in_both_schedules(blobs, rule, schedule):
    x, y = blobs
    net = small().fit(x, y, rule=rule, schedule=schedule, epochs=20, batch=20, lr=0.01)
    assert net.score(x, y) > 0.95


def test_drtp_learns_with_bounded_activations(blobs):
    x, y = blobs
    net = el.Net([el.Dense(16, "tanh"), el.Dense(4)], input_shape=(6,))
    assert net.fit(x, y, rule="drtp", epochs=20, batch=20, lr=0.01).score(x, y) > 0.95


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("rule", ["tp-l2", "readout"])
def test_regression_is_learned_and_scored_by_r_squared(loss, rule):
    x = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    y = np.stack([np.tanh(x[:, 0]) + x[:, 1], x[:, 2]], axis=1)
    net = el.Net([el.Dense(32, "relu"), el.Dense(2)], input_shape=(3,), loss=loss)
    net.fit(x, y, rule=rule, epochs=60, batch=20, lr=0.01)
    assert net.score(x, y) > 0.9
    assert net.predict(x).shape == (400, 2)


def test_float_targets_alone_make_a_regression_net():
    x = np.random.default_rng(1).normal(size=(100, 3))
    net = el.Net([el.Dense(8, "relu"), el.Dense(1)]).fit(x, x[:, 0], epochs=30, lr=0.02, batch=10)
    assert net.train["rule"] == "tp-l2"
    assert net.loss == "mse"
    assert net.predict(x).shape == (100,)
    with pytest.raises(el.UsageError, match="no probabilities"):
        net.predict_proba(x)


def test_weights_are_writable_views_with_the_agreed_names(blobs):
    net = small()
    assert list(net.weights) == ["dense.weight", "dense.bias", "dense_1.weight", "dense_1.bias"]
    before = net.predict_proba(blobs[0])
    net.weights["dense_1.bias"][...] = [9, 0, 0, 0]
    assert not np.array_equal(before, net.predict_proba(blobs[0]))
    assert (net.predict(blobs[0]) == 0).mean() > 0.9


def test_the_same_seed_gives_the_same_bits_with_one_and_two_threads(blobs):
    runs = [small(seed=1).fit(*blobs, epochs=3, seed=1, threads=n).flat for n in (1, 1, 2, 2)]
    assert all(np.array_equal(runs[0], other) for other in runs[1:])
    assert not np.array_equal(runs[0], small(seed=2).fit(*blobs, epochs=3, seed=1).flat)


def test_text_labels_are_kept_and_predicted(blobs):
    names = np.array(["bee", "ant", "cat", "dog"])
    net = small().fit(blobs[0], names[blobs[1]], epochs=20, batch=20, lr=0.01)
    assert net.classes == ["ant", "bee", "cat", "dog"]
    assert set(net.predict(blobs[0])) == set(names)
    with pytest.raises(el.DataError, match="'fox' is not a class"):
        net.partial_fit(blobs[0][:1], ["fox"])


def test_uint8_images_are_scaled_inside(blobs):
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 2), dtype=np.uint8)
    net = el.Net([el.Dense(4)])
    net.fit(x, np.arange(50) % 4, epochs=1)
    assert net.buffers["input.scale"][0] == pytest.approx(1 / 255)
    assert np.array_equal(net.predict_proba(x), net.predict_proba(x.reshape(50, 6)))
    assert np.array_equal(net.predict_proba(x), net.predict_proba(x.astype(np.float64)))


def test_partial_fit_goes_on_with_its_optimizer_state(blobs):
    x, y = blobs
    once, twice = small(), small()
    once.partial_fit(x, y, lr=0.01, batch=20)
    twice.partial_fit(x[:100], y[:100], lr=0.01, batch=20).partial_fit(x[100:], y[100:], lr=0.01, batch=20)
    assert np.array_equal(once.flat, twice.flat)
    assert not np.array_equal(once.flat, small().flat)


def test_a_saved_net_answers_and_trains_on_like_the_original(blobs, tmp_path):
    net = el.Net([el.Dense(8), el.BatchNormalization(), el.Activation("relu"), el.Dropout(0.1), el.Dense(4)])
    net.fit(*blobs, epochs=3).save(tmp_path / "m.safetensors")
    back = el.load(tmp_path / "m.safetensors")
    assert np.array_equal(net.predict_proba(blobs[0]), back.predict_proba(blobs[0]))
    assert back.train["rule"] == "tp-ce"
    assert np.array_equal(net.fit(*blobs, epochs=1).flat, back.fit(*blobs, epochs=1).flat)


def test_a_fitted_net_exports_by_its_own_samples(blobs, tmp_path):
    net = small().fit(*blobs, epochs=2)
    for name in ("m.onnx", "m.tflite"):
        report = net.export(tmp_path / name)
        assert report.max_abs_diff < 1e-4
    with pytest.raises(el.UsageError, match="no samples"):
        small().export(tmp_path / "x.onnx")


def test_int8_files_are_calibrated_on_what_is_given(blobs, tmp_path):
    x, y = blobs
    net = small().fit(x, y, epochs=5)
    report = net.export(tmp_path / "m.tflite", dtype="int8", calibration=x[:100], samples=x[100:], labels=y[100:])
    assert (report.dtype, report.samples) == ("int8", 100)
    assert report.rows[0].accuracy >= report.accuracy - 0.02
    with pytest.raises(el.DataError, match="expected samples of shape"):
        net.export(tmp_path / "x.tflite", dtype="int8", calibration=x[:, :3])
    with pytest.raises(el.DataError, match="int8 needs samples to calibrate on"):
        small().export(tmp_path / "x.tflite", dtype="int8")
    net.provenance = {"samples": "noise"}
    with pytest.raises(el.DataError, match="keeps noise in place of training samples"):
        net.export(tmp_path / "x.tflite", dtype="int8")
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


def test_channels_first_samples_are_taken_as_the_data_holds_them_in_exports_too(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3, 5)).astype(np.float32) * [[1], [10], [100]], np.arange(60) % 2
    x[y == 1] += 1
    net = el.Net(
        [el.Dense(8, "relu"), el.Dense(2)],
        input=el.Input(layout="channels_first", scale=(1.0, 10.0, 100.0), standardise=True),
    )
    net.fit(x, y, epochs=3)
    net.save(tmp_path / "m.safetensors")
    from edgelearn.export import runtimes

    for name in ("m.onnx", "m.tflite"):
        el.load(tmp_path / "m.safetensors").export(tmp_path / name)
        runtime = runtimes.load(tmp_path / name)
        assert tuple(runtime.input_shape)[-2:] == (3, 5)
        assert np.allclose(runtime.run(x), net.predict_proba(x), atol=1e-5)


def test_what_callers_have_at_hand_is_taken(blobs):
    x, y = blobs
    names = np.array(["a", "b", "c", "d"], object)
    for samples, labels in [
        (x.astype(np.float64), y.astype(np.uint64)),
        (np.asfortranarray(x), y.tolist()),
        (x.tolist(), names[y]),
        (x.astype(np.float16), y),
    ]:
        assert small().fit(samples, labels, epochs=np.int64(1), batch=np.int32(50)).history.samples == 200
    frozen = x.copy()
    frozen.flags.writeable = False
    assert el.Net([el.Dense(np.int64(4))], input_shape=6).fit(frozen, y, epochs=1, lr=np.float32(0.01)).score(x, y) > 0


def test_copies_and_pickles_answer_alike(blobs):
    net = small().fit(*blobs, epochs=1)
    expected = net.predict_proba(blobs[0])
    net.partial_fit(*blobs)
    net.flat[...] = small().flat
    twin = pickle.loads(pickle.dumps(net))
    assert np.array_equal(twin.predict_proba(blobs[0]), net.predict_proba(blobs[0]))
    assert not np.array_equal(expected, twin.predict_proba(blobs[0]))


def test_a_last_batch_of_one_is_not_learned_alone_under_normalisation(blobs):
    net = el.Net([el.Dense(8), el.BatchNormalization(), el.Dense(4)], input_shape=(6,))
    net.partial_fit(blobs[0][:33], blobs[1][:33], batch=16)
    start = net.flat.copy()
    with pytest.raises(el.DataError, match="at least 2"):
        net.partial_fit(blobs[0][:1], blobs[1][:1], batch=16)
    assert np.array_equal(start, net.flat)


def test_damaged_weights_do_not_answer(blobs):
    net = small()
    net.weights["dense.weight"][0, 0] = np.nan
    with pytest.raises(el.ModelError, match="not finite"):
        net.predict(blobs[0])


BAD = {
    "a NaN": (lambda x, y: (np.where(np.arange(6) == 2, np.nan, x), y), "sample 0 .* NaN"),
    "an infinity": (lambda x, y: (np.where(np.arange(6) == 2, np.inf, x), y), "infinity"),
    "a label too large": (lambda x, y: (x, y + 1), "label 4 of sample 3 is outside 0 .. 3"),
    "a negative label": (lambda x, y: (x, y - 1), "label -1 of sample 0"),
    "another width": (lambda x, y: (x[:, :5], y), "expected .*6"),
    "no samples": (lambda x, y: (x[:0], y[:0]), "at least one"),
    "one class only": (lambda x, y: (x, y * 0), "at least two classes"),
    "too few labels": (lambda x, y: (x, y[:-1]), "one label for each sample"),
    "float labels": (lambda x, y: (x, y + 0.5), "labels|regression|1 units|4 units"),
    "text samples": (lambda x, y: (x.astype(str), y), "<U|text|numbers|str"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_in_one_sentence_and_changes_nothing(blobs, case):
    spoil, message = BAD[case]
    net = small(loss="cross_entropy")
    before = net.flat.copy()
    with pytest.raises(el.DataError, match=message) as refusal:
        net.fit(*spoil(*blobs))
    assert np.array_equal(before, net.flat)
    assert "\n" not in str(refusal.value)


REFUSED = {
    "float targets": (lambda x, y: (x, y + 0.5), {}),
    "a setting": (lambda x, y: (x, y), {"epochs": 0}),
    "weights of classes": (lambda x, y: (x, y), {"class_weights": [1.0, 2.0]}),
    "too little memory": (lambda x, y: (x, y), {"budget": el.Budget(ram="1KB")}),
    "names of classes": (lambda x, y: (x, [f"class {label}" for label in y]), {"lr": -1.0}),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_a_net_that_refused_data_takes_others_as_if_nothing_had_been(blobs, case, nested):
    spoil, settings = REFUSED[case]
    x, y = blobs
    net, other = (el.Net([el.Dense(16, "relu"), el.Dense(4)], nested=nested) for _ in range(2))
    with pytest.raises(el.EdgelearnError):
        net.fit(*spoil(x[:, :3] * 100, y), **settings)
    for each in (net, other):
        each.fit(x, y, epochs=1, batch=20)
    assert np.array_equal(net.flat, other.flat)
    assert (net.classes, net.input) == (other.classes, other.input)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_classifier_that_was_given_values_is_a_classifier_still(blobs, method):
    net = small().fit(*blobs, epochs=1, batch=20)
    before = net.flat.copy()
    with pytest.raises(el.DataError, match="labels must be one integer or text each"):
        getattr(net, method)(blobs[0], np.eye(4)[blobs[1]])
    assert np.array_equal(net.flat, before)
    assert getattr(net, method)(*blobs).loss == "cross_entropy"


BAD_SETTINGS = [
    ({"rule": "backprop"}, el.ModelError, "choose one of"),
    ({"optimizer": "lion"}, el.UsageError, "choose one of"),
    ({"schedule": "random"}, el.UsageError, "interleaved"),
    ({"lr": -1.0}, el.UsageError, "positive"),
    ({"lr": float("nan")}, el.UsageError, "positive"),
    ({"epochs": 0}, el.UsageError, "from 1 up"),
    ({"batch": 2.5}, el.UsageError, "from 1 up"),
    ({"moment": 1}, el.UsageError, "no setting 'moment'"),
    ({"backend": "cuda"}, el.UsageError, "native, numba"),
    ({"temperature": 0.0}, el.UsageError, "positive"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD_SETTINGS)
def test_settings_that_cannot_be_meant_are_refused(blobs, settings, error, message):
    with pytest.raises(error, match=message):
        small().fit(*blobs, **settings)


def test_target_projection_with_cross_entropy_refuses_regression():
    net = el.Net([el.Dense(4, "relu"), el.Dense(1)], input_shape=(3,), loss="mse")
    with pytest.raises(el.ModelError, match="needs classes"):
        net.fit(np.ones((5, 3)), np.arange(5.0), rule="tp-ce")


def test_layers_that_are_no_net_are_refused():
    for layers, message in [
        ([], "begins with"),
        ([el.Dropout(0.1)], "begins with"),
        ([el.Dense(3, name="a"), el.Dense(3, name="a")], "two layers"),
        ([el.Dense(3), el.Dropout(0.1), el.Dropout(0.1), el.Dense(3)], "two Dropouts"),
    ]:
        with pytest.raises(el.ModelError, match=message):
            el.Net(layers, input_shape=(4,))
    with pytest.raises(el.ModelError, match="softmax is for the output"):
        el.Net([el.Dense(3, "softmax"), el.Dense(3)], input_shape=(4,))
    with pytest.raises(el.ModelError, match="cannot learn by mse"):
        el.Net([el.Dense(3, "softmax")], input_shape=(4,), loss="mse")
    with pytest.raises(el.ModelError, match="more than a net can hold"):
        el.Net([el.Dense(10**9)], input_shape=(10**6,))
    with pytest.raises(el.ModelError, match="at least 1 unit"):
        el.Dense(0)
    with pytest.raises(el.ModelError, match="unknown activation"):
        el.Dense(3, "swish")
