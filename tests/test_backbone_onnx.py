# SPDX-License-Identifier: Apache-2.0
"""ONNX files of any make as backbones: where they can be cut, what is listed, grafts that answer alike."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgelearn as el
from edgelearn import adaptation, backbone
from edgelearn.adaptation import adapted, grafting
from edgelearn.backbone.inspecting import listing
from edgelearn.backbone.onnx import load
from edgelearn.errors import ModelError
from edgelearn.export import runtimes

RNG = np.random.default_rng(0)


def model(
    nodes, constants, shape=("batch", 3, 8, 8), output=("batch", 4), opset=17, domains=(), kind=TensorProto.FLOAT
):
    """A file's bytes from nodes and arrays by name."""
    graph = helper.make_graph(
        nodes,
        "outside",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        initializer=[numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def f32(*shape):
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def residual(batch="batch", softmax=False):
    """Convolution, normalisation, a residual pair, global pooling, and a head as PyTorch writes one."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c0", "g", "s", "m", "v"], ["n0"]),
        helper.make_node("Relu", ["n0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Add", ["r0", "r1"], ["sum"]),
        helper.make_node("Conv", ["sum", "w2"], ["c2"], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits" if softmax else "y"], transB=1),
    ]
    nodes += [helper.make_node("Softmax", ["logits"], ["y"], axis=1)] if softmax else []
    constants = {"w0": f32(6, 3, 3, 3), "b0": f32(6), "w1": f32(6, 6, 3, 3), "w2": f32(8, 6, 3, 3), "w3": f32(4, 8)}
    constants |= {"g": np.ones(6, np.float32), "s": f32(6), "m": f32(6), "v": np.ones(6, np.float32), "b3": f32(4)}
    return model(nodes, constants, (batch, 3, 8, 8), (batch, 4))


def transformer():
    """A block over (steps, features) with its channels last, and a MatMul and Add as head."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["e"]),
        helper.make_node("LayerNormalization", ["e", "g", "s"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w1"], ["u"]),
        helper.make_node("Relu", ["u"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["d"]),
        helper.make_node("Add", ["e", "d"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["f"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["f", "w3"], ["l"]),
        helper.make_node("Add", ["l", "b3"], ["y"]),
    ]
    constants = {"w0": f32(5, 8), "w1": f32(8, 16), "w2": f32(16, 8), "w3": f32(8, 4), "b3": f32(4)}
    constants |= {"g": np.ones(8, np.float32), "s": np.zeros(8, np.float32)}
    return model(nodes, constants, ("batch", 7, 5))


def quantised():
    """A convolution on bytes, between a QuantizeLinear and a DequantizeLinear, with int8 weights."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sr", "zx"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "sr", "zx"], ["rd"]),
        helper.make_node("GlobalAveragePool", ["rd"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("DequantizeLinear", ["hq", "sh"], ["hd"]),
        helper.make_node("MatMul", ["f", "hd"], ["y"]),
    ]
    constants = {"sx": np.float32(0.03), "zx": np.uint8(128), "sr": np.float32(0.03), "sh": np.float32(0.01)}
    constants |= {"wq": RNG.integers(-127, 128, (6, 3, 3, 3), np.int8), "sw": np.full(6, 0.005, np.float32)}
    constants |= {"zw": np.zeros(6, np.int8), "hq": RNG.integers(-127, 128, (6, 4), np.int8)}
    return model(nodes, constants)


def answers(path, x):
    return runtimes.load(path).run(x)


FILES = {"residual": residual, "softmax": lambda: residual(softmax=True), "transformer": transformer, "int8": quantised}


@pytest.mark.parametrize("name", FILES)
def test_stages_one_after_the_other_are_the_whole_graph(name, tmp_path):
    (tmp_path / "m.onnx").write_bytes(FILES[name]())
    frozen = load((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    x = RNG.normal(size=(19, *frozen.input.shape)).astype(np.float32)
    found = adapted.Adapted(frozen)
    expected = answers(tmp_path / "m.onnx", x)
    mine = found.forward(x) if name == "softmax" else found.output.logits(found.features(x))
    # Bytes are rounded elsewhere when the runtime sees only a part.
    assert mine == pytest.approx(expected, abs=0.03 if name == "int8" else 1e-5)


def test_taps_are_where_everything_flows_through():
    frozen = load(residual(), "m.onnx")
    assert [str(tap) for tap in frozen.taps] == ["r0 (8 x 8 x 6)", "sum (8 x 8 x 6)", "p (8)"]
    assert "r1" not in frozen.graph.cuts
    assert [tap.name for tap in load(transformer(), "t.onnx").taps] == ["e", "f"]
    assert load(transformer(), "t.onnx").axes["e"] == 2
    assert [tap.name for tap in load(residual(), "m.onnx", ("c2", "n0")).taps] == ["n0", "c2"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("kind", "merged"), [("lora", False), ("lora", True), ("householder", False), ("bottleneck", False)]
)
def test_a_graft_answers_as_the_adaptation_does(name, kind, merged, tmp_path):
    frozen = load(FILES[name](), "m.onnx")
    x = RNG.normal(size=(40, *frozen.input.shape)).astype(np.float32)
    y = (np.arange(40) % 4).astype(np.int32)
    way = "statistics+adapters+head" if name in ("residual", "softmax") else "adapters+head"
    found = adaptation.adapt(frozen, x, y, kind=kind, rank=2, ways=(way,), steps=5)
    assert grafting.write(tmp_path / "g.onnx", found, x, merged) < 1e-4
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)
    softmax = name == "softmax"
    expected = found.forward(x) if softmax else found.output.logits(found.features(x))
    before = adapted.Adapted(frozen)
    assert answers(tmp_path / "g.onnx", x) == pytest.approx(expected, abs=1e-4)
    assert not np.allclose(expected, before.forward(x) if softmax else before.output.logits(before.features(x)))


def test_statistics_of_batch_normalisation_are_those_of_the_samples():
    frozen = load(residual(), "m.onnx")
    x = RNG.normal(2, 3, size=(40, 3, 8, 8)).astype(np.float32)
    found = frozen.statistics(x)
    constants = frozen.graph.constants
    c0 = load(residual(), "m.onnx", ("c0",))
    c0.graph = frozen.graph
    maps = c0.stage(0, x)
    assert found["n0.mean"] == pytest.approx(maps.mean(axis=(0, 1)), abs=1e-3)
    assert found["n0.variance"] == pytest.approx(maps.var(axis=(0, 1)), rel=1e-3)
    assert frozen.restated(found).graph.constants[frozen.restated(found).graph.producers["n0"].input[3]].shape == (6,)
    assert frozen.graph.constants is constants
    with pytest.raises(ModelError, match="has no statistics 'r0.mean'"):
        frozen.restated({"r0.mean": np.zeros(6, np.float32)})


def test_a_file_that_wants_one_sample_at_a_time_gets_one(tmp_path):
    (tmp_path / "m.onnx").write_bytes(residual(batch=3))
    frozen = load(residual(batch=3), "m.onnx")
    x = RNG.normal(size=(7, 3, 8, 8)).astype(np.float32)
    assert adapted.Adapted(frozen).forward(x).shape == (7, 4)
    found = adaptation.adapt(frozen, np.tile(x, (3, 1, 1, 1)), np.arange(21, dtype=np.int32) % 4, ways=("head",))
    assert grafting.write(tmp_path / "g.onnx", found, x[:3]) < 1e-4


def test_a_backbone_without_a_head_gets_one(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    data = model(nodes, {"w0": f32(6, 3, 3, 3), "w1": f32(8, 6, 3, 3)}, output=("batch", 8, 1, 1))
    frozen = load(data, "embedding.onnx")
    assert frozen.head is None
    with pytest.raises(ModelError, match="no linear head of its own"):
        adapted.Adapted(frozen).forward(RNG.normal(size=(2, 3, 8, 8)))
    x = RNG.normal(size=(40, 3, 8, 8)).astype(np.float32)
    y = (np.arange(40) % 4).astype(np.int32)
    x[np.arange(40), 0] += 3 * np.eye(8, dtype=np.float32)[y][:, None]
    found = adaptation.adapt(frozen, x, y, classes=["a", "b", "c", "d"], rank=2)
    assert found.about["way"] != "none"
    assert grafting.write(tmp_path / "g.onnx", found, x) < 1e-4
    assert runtimes.load(tmp_path / "g.onnx").classes == ["a", "b", "c", "d"]
    assert answers(tmp_path / "g.onnx", x).shape == (40, 4)


def test_names_of_an_old_head_do_not_stay_with_a_new_one(tmp_path):
    whole = onnx.load_model_from_string(residual())
    helper.set_model_props(whole, {"classes": '["ant", "bee", "cat", "owl"]'})
    frozen = load(whole.SerializeToString(), "m.onnx")
    x = RNG.normal(size=(40, 3, 8, 8)).astype(np.float32)
    for classes, names in ((None, ["ant", "bee", "cat", "owl"]), (6, None)):
        found = adaptation.adapt(frozen, x, np.arange(40) % 4, classes=classes, ways="head")
        grafting.write(tmp_path / "g.onnx", found, x)
        assert runtimes.load(tmp_path / "g.onnx").classes == names
    assert adapted.Adapted(frozen).class_names == frozen.classes


def test_nets_of_ours_can_be_adapted_as_onnx_files_too(blobs, tmp_path):
    x, y = blobs
    net = el.Net([el.Dense(8, "relu"), el.Dense(6, "relu"), el.Dense(4)], input_shape=(6,), seed=0)
    net.fit(x, y, epochs=5, batch=20)
    net.export(tmp_path / "m.onnx", samples=x[:20])
    frozen = backbone.load(tmp_path / "m.onnx")
    assert [tap.channels for tap in frozen.taps] == [8, 6]
    found = adapted.Adapted(frozen)
    assert found.forward(x) == pytest.approx(net.forward(x), abs=1e-5)


def test_the_listing_says_what_can_be_learned_where_and_why_not(tmp_path):
    for name, make in FILES.items():
        (tmp_path / f"{name}.onnx").write_bytes(make())
    found = listing(tmp_path / "residual.onnx")
    rows = {row.output: row for row in found.rows}
    assert len(rows) == 11
    assert rows["y"].learns == "head"
    assert rows["n0"].learns == "statistics"
    assert rows["c1"].adapter == "other paths lead around it"
    assert rows["sum"].tap
    assert rows["c1"].parameters == 6 * 6 * 9
    assert found.default == ("r0", "sum", "p")
    int8 = {row.output: row for row in listing(tmp_path / "int8.onnx").rows}
    assert int8["c"].learns == "no: quantised weights stay as they are"
    assert int8["xq"].adapter == "it holds whole numbers: what is quantised stays as it is"
    assert int8["wd"].learns == int8["c"].learns
    assert int8["xq"].learns == "no: no weights"
    assert rows["c1"].learns == "no: frozen"
    assert rows["c2"].learns == "no: frozen; an adapter behind it stands in"
    (tmp_path / "after.onnx").write_bytes(residual(softmax=True))
    assert {r.output: r for r in listing(tmp_path / "after.onnx").rows}["logits"].adapter.startswith("it lies behind")
    (tmp_path / "norm.onnx").write_bytes(transformer())
    assert {row.output: row for row in listing(tmp_path / "norm.onnx").rows}["n"].learns == "no: frozen"
    assert found.statistics == "measured again at n0"
    assert "statistics  none: exporters fold normalisation into the product" in str(listing(tmp_path / "int8.onnx"))
    text = str(found)
    assert "adapter: no, other paths lead around it" in text
    assert "opset 17, input x batch x 3 x 8 x 8, 11 nodes" in text
    with pytest.raises(ModelError, match="check the path"):
        listing(tmp_path / "none.onnx")
