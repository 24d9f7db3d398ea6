# SPDX-License-Identifier: Apache-2.0
"""What ONNX files are refused as backbones, all reasons at once; bytes at their ends; samples that do not fit."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_backbone_onnx import answers, f32, model, residual, transformer

import edgelearn as el
from edgelearn import adaptation, backbone
from edgelearn.adaptation import adapted, grafting
from edgelearn.backbone.inspecting import listing
from edgelearn.backbone.onnx import load
from edgelearn.errors import DataError, ModelError, UsageError, VerificationError

RNG = np.random.default_rng(1)


def plain(operator="Relu", domain="", **options):
    return model([helper.make_node(operator, ["x"], ["y"], domain=domain)], {}, **{"output": None, **options})


def test_files_that_cannot_be_backbones_are_refused(tmp_path):
    two = [helper.make_node("Fancy", ["x"], ["a"], domain="my.ops"), helper.make_node("Odd", ["a"], ["y"], domain="z")]
    with pytest.raises(ModelError, match=r"does not bring along \(my.ops.Fancy, z.Odd\)"):
        load(model(two, {}, domains=("my.ops", "z")), "m.onnx")
    with pytest.raises(ModelError, match="is of opset 99 instead of 7 to"):
        load(plain(opset=99), "m.onnx")
    with pytest.raises(ModelError, match="is of opset 3"):
        load(plain(opset=3), "m.onnx")
    with pytest.raises(ModelError, match=r"reads 'x' of shape \[batch, 3, height, 8\] instead"):
        load(plain(shape=("batch", 3, "height", 8)), "m.onnx")
    with pytest.raises(ModelError, match="is damaged or no ONNX file"):
        load(b"no onnx", "m.onnx")
    with pytest.raises(ModelError, match="is damaged or no ONNX file"):
        load(residual()[:400], "m.onnx")
    with pytest.raises(ModelError, match="can be cut nowhere"):
        load(plain(), "m.onnx")
    with pytest.raises(ModelError, match="reads 'x' as INT64 instead of float32"):
        load(plain("Identity", kind=TensorProto.INT64), "m.onnx")
    with pytest.raises(ModelError, match="no tap at 'r1' \\(other paths lead around it\\): choose from c0, n0, r0"):
        load(residual(), "m.onnx", ("r1",))
    with pytest.raises(ModelError, match="no tap at 'nope' .*, 'logits' \\(it lies behind what the head"):
        load(residual(softmax=True), "m.onnx", ("nope", "r0", "logits"))
    with pytest.raises(ModelError, match="is no backbone: give a file that ends in"):
        backbone.load("m.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        backbone.load(tmp_path / "none.onnx")


def test_samples_and_settings_that_do_not_fit_are_refused(tmp_path):
    frozen = load(residual(), "m.onnx")
    y = (np.arange(20) % 4).astype(np.int32)
    x = RNG.normal(size=(20, 3, 8, 8)).astype(np.float32)
    with pytest.raises(DataError, match="give them in that order of axes"):
        adaptation.adapt(frozen, x.transpose(0, 2, 3, 1), y)
    with pytest.raises(DataError, match="NaN or infinity"):
        adaptation.adapt(frozen, np.where(x > 2, np.nan, x), y)
    with pytest.raises(UsageError, match="rank 7 does not fit the 6 channels of tap r0"):
        adaptation.adapt(frozen, x, y, rank=7)
    whole = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT), helper.make_node("Conv", ["c", "v"], ["a"])]
    whole += [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("GlobalAveragePool", ["r"], ["p"])]
    whole += [helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    bytes_in = load(model(whole, {"v": f32(6, 3, 3, 3), "w": f32(6, 4)}, kind=TensorProto.INT8), "int8.onnx")
    with pytest.raises(DataError, match="int8.onnx reads int8: give the samples as such, or export it with floats"):
        adaptation.adapt(bytes_in, x, y, ways=("head",))
    folded = load(transformer(), "folded.onnx")
    flat = RNG.normal(size=(20, 7, 5)).astype(np.float32)
    with pytest.raises(UsageError, match="folded.onnx has no normalisation to measure again.* adapters\\+head"):
        adaptation.adapt(folded, flat, y, ways=("statistics", "statistics+head"))
    with pytest.raises(UsageError, match="has no head for 6 classes, so none cannot be"):
        adaptation.adapt(folded, flat, y, classes=6, ways=("none",))
    found = adaptation.adapt(frozen, x, y, ways=("head",))
    found.save(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="was made for another backbone"):
        adapted.load(tmp_path / "a.safetensors", load(residual(softmax=True), "other.onnx"))
    found.head.weight[...] = np.inf
    with np.errstate(all="ignore"), pytest.raises(VerificationError, match="it was not kept"):
        grafting.write(tmp_path / "g.onnx", found, x)
    assert not (tmp_path / "g.onnx").exists()


def test_all_that_is_wrong_with_a_file_is_said_at_once():
    ends = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", "steps", 3])]
    ends.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["n"]))
    nodes = [helper.make_node("Odd", ["x"], ["a"], domain="my.ops"), helper.make_node("Missing", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "bad", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])])
    imports = [helper.make_opsetid("", 5), helper.make_opsetid("my.ops", 1)]
    with pytest.raises(ModelError) as caught:
        load(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString(), "bad.onnx")
    for part in (
        "bring along (Missing, my.ops.Odd)",
        "is of opset 5 instead of 7 to",
        "has 2 inputs and 1 outputs",
        "reads 'x' of shape [n, steps, 3]",
        "reads 'x' as DOUBLE",
    ):
        assert part in str(caught.value)


def test_an_operator_that_the_opset_does_not_have_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"bring along \(Gelu\)"):
        load(plain("Gelu"), "m.onnx")
    (tmp_path / "m.onnx").write_bytes(plain("Nowhere", "com.microsoft", domains=("com.microsoft",)))
    with pytest.raises(ModelError, match="onnxruntime cannot run m.onnx .*Nowhere"):
        listing(tmp_path / "m.onnx")


def test_functions_of_a_file_are_taken_apart(tmp_path):
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    whole = onnx.load_model_from_string(residual())
    whole.graph.node[8].input[0] = "doubled"
    whole.graph.node.insert(8, helper.make_node("Twice", ["r2"], ["doubled"], domain="local"))
    whole.functions.append(twice)
    whole.opset_import.append(helper.make_opsetid("local", 1))
    (tmp_path / "m.onnx").write_bytes(whole.SerializeToString())
    x = RNG.normal(size=(5, 3, 8, 8)).astype(np.float32)
    found = adapted.Adapted(backbone.load(tmp_path / "m.onnx"))
    assert found.output.logits(found.features(x)) == pytest.approx(answers(tmp_path / "m.onnx", x), abs=1e-5)


def test_a_tap_that_is_named_twice_is_one():
    assert [tap.name for tap in load(residual(), "m.onnx", ("r0", "n0", "r0")).taps] == ["n0", "r0"]


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """A net's int8 .onnx, bytes at its ends, and pictures as bytes."""
    folder = tmp_path_factory.mktemp("int8")
    y = np.arange(200) % 4
    x = (RNG.uniform(40, 200, (4, 8, 8))[y] + RNG.normal(0, 20, (200, 8, 8))).clip(0, 255).astype(np.uint8)
    layers = [el.Conv2D(8, activation="relu"), el.MaxPool(), el.Dense(12, "relu"), el.Dense(4)]
    net = el.Net(layers, input=el.Input(shape=(8, 8), scale=255.0), seed=0)
    net.fit(x[:160], y[:160], rule="readout", epochs=10, batch=20, lr=3e-3)
    net.export(folder / "m.onnx", dtype="int8", calibration=x[:100])
    return folder / "m.onnx", x, y.astype(np.int32)


@pytest.mark.parametrize(("kind", "merged"), [("lora", False), ("lora", True), ("householder", False)])
def test_bytes_at_the_ends_take_samples_as_they_are_and_give_floats(int8, tmp_path, kind, merged):
    path, x, y = int8
    frozen = backbone.load(path)
    assert adapted.Adapted(frozen).forward(x) == pytest.approx(answers(path, x), abs=0.02)
    found = adaptation.adapt(frozen, 255 - x[:60], y[:60], kind=kind, rank=4, ways=("adapters+head",), steps=20)
    # A lone product between quantisers would have its weights rounded to bytes by onnxruntime.
    assert grafting.write(tmp_path / "g.onnx", found, 255 - x, merged) < 1e-4
    assert answers(tmp_path / "g.onnx", 255 - x) == pytest.approx(found.forward(255 - x), abs=1e-4)


def test_an_int8_file_that_nothing_was_learned_on_answers_in_floats_as_well(int8, tmp_path):
    path, x, _ = int8
    found = adapted.Adapted(backbone.load(path))
    assert grafting.write(tmp_path / "g.onnx", found, x) < 1e-4
    assert answers(tmp_path / "g.onnx", x).dtype == np.float32


def test_what_a_file_says_of_its_input_and_classes_holds(tmp_path):
    whole = onnx.load_model_from_string(residual())
    said = {"input": json.dumps({"image": {"size": [8, 8], "color": "rgb"}}), "classes": '["a", "b", "c", "d"]'}
    helper.set_model_props(whole, said)
    frozen = load(whole.SerializeToString(), "m.onnx")
    assert frozen.input.image.size == (8, 8)
    assert frozen.classes == ["a", "b", "c", "d"]
    helper.set_model_props(whole, {"classes": "["})
    with pytest.raises(ModelError, match="the metadata of m.onnx is damaged"):
        load(whole.SerializeToString(), "m.onnx")
