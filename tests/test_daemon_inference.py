# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol: in JSON, with binary tensors, and from a client that others wrote."""

import json
import struct
import warnings

import numpy as np
import pytest
from daemons import CLASSES, SHAPE, daemon, model, pictures

import edgelearn as el

X, Y = pictures(30, seed=5)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with daemon(folder / "data", "--model", model(folder / "m.safetensors")) as running:
        running.net = el.load(folder / "m.safetensors")
        yield running


def tensor(x, **more):
    return {"inputs": [{"name": "x", "datatype": "UINT8", "shape": list(x.shape), "data": x.tolist()}], **more}


def test_health_and_metadata(served):
    assert served.json("GET", "/v2/health/live", token=False) == (200, {"live": True})
    assert served.json("GET", "/v2/health/ready", token=False) == (200, {"ready": True})
    assert served.json("GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
    _, about = served.json("GET", "/v2/models/model")
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, *SHAPE]}]
    assert [(o["name"], o["shape"]) for o in about["outputs"]] == [("probabilities", [-1, 3]), ("label", [-1])]
    version = about["versions"][0]
    assert served.json("GET", f"/v2/models/model/versions/{version[:8]}")[1]["versions"] == [version]
    assert served.json("GET", f"/v2/models/model/versions/{version}/ready")[1]["ready"]


def test_json_predictions_are_the_nets_and_name_their_version(served):
    status, headers, content = served.ask("POST", "/v2/models/model/infer", tensor(X, id="seven"))
    answer = json.loads(content)
    assert (status, answer["id"]) == (200, "seven")
    outputs = {item["name"]: np.reshape(item["data"], item["shape"]) for item in answer["outputs"]}
    np.testing.assert_allclose(outputs["probabilities"], served.net.predict_proba(X), atol=1e-6)
    assert outputs["label"].tolist() == served.net.predict(X).tolist()
    live = served.client.status()["live"]["id"]
    assert answer["model_version"] == headers["Edgelearn-Version"] == live


def test_binary_tensors_go_both_ways(served):
    x = X.astype("<f4")
    head = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
        ],
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}],
    }
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    status, given, content = served.ask("POST", "/v2/models/model/infer", text + x.tobytes(), headers)
    assert status == 200
    cut = int(given["Inference-Header-Content-Length"])
    first, second = json.loads(content[:cut])["outputs"]
    assert first["parameters"]["binary_data_size"] == len(content) - cut
    assert "data" not in first
    np.testing.assert_allclose(np.reshape(second["data"], second["shape"]), served.net.predict_proba(x), atol=1e-6)
    (length,) = struct.unpack_from("<I", content, cut)
    assert content[cut + 4 : cut + 4 + length].decode() == served.net.predict(x)[0]


def test_an_outside_client_reads_metadata_and_infers(served):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
        host, port = served.tcp
        client = triton.InferenceServerClient(f"{host}:{port}")
        headers = {"Authorization": f"Bearer {served.token}"}
        assert client.is_server_live(headers)
        assert client.is_model_ready("model", headers=headers)
        assert client.get_server_metadata(headers)["name"] == "edgelearnd"
        assert client.get_model_metadata("model", headers=headers)["inputs"][0]["shape"] == [-1, *SHAPE]
        for binary in (True, False):
            asked = triton.InferInput("x", list(X.shape), "UINT8")
            asked.set_data_from_numpy(X, binary_data=binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]
            result = client.infer("model", [asked], outputs=wanted, headers=dict(headers))  # it writes into them
            np.testing.assert_allclose(result.as_numpy("probabilities"), served.net.predict_proba(X), atol=1e-6)
            labels = [t.decode() if isinstance(t, bytes) else t for t in result.as_numpy("label")]
            assert labels == served.net.predict(X).tolist()
        client.close()


def test_the_client_of_edgelearn_answers_like_the_net(served):
    answer = served.client.predict(X[0])
    assert answer.label == served.net.predict(X[:1])[0]
    assert answer.probability == pytest.approx(served.net.predict_proba(X[:1]).max(), abs=1e-6)
    assert answer.model_id == served.client.status()["live"]["id"]
    np.testing.assert_allclose(served.client.predict_proba(X), served.net.predict_proba(X), atol=1e-6)
    assert served.client.status()["classes"] == CLASSES


BAD = {
    "not JSON": (b"{", "is not JSON"),
    "deep": (b"[" * 50_000, "is not JSON"),
    "no inputs": ({}, "list 'inputs'"),
    "a list": ([1], "list 'inputs'"),
    "no name": ({"inputs": [{}]}, "name, datatype, shape"),
    "no datatype": ({"inputs": [{"name": "x"}]}, "datatype"),
    "no shape": ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "shape"),
    "huge shape": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1 << 39, 1 << 39]}]}, "shape"),
    "no data": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "no list of data"),
    "ragged": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1], 2]}]}, "mixes lists"),
    "too few": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}, "its shape 2"),
    "text": ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}, "send numbers"),
    "text as number": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["a"]}]}, "hold numbers"),
    "a fraction": ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [0.5]}]}, "whole numbers"),
    "overflow": ({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [256]}]}, "beyond UINT8"),
    "other shape": (tensor(X[:, :3]), "expected samples of shape"),
    "none": (tensor(X[:0]), "no samples"),
    "two inputs": ({"inputs": [tensor(X)["inputs"][0], {**tensor(X)["inputs"][0], "name": "z"}]}, "one input"),
    "no such output": (tensor(X, outputs=[{"name": "logits"}]), "outputs must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_request_is_refused_in_a_sentence(served, name):
    body, expected = BAD[name]
    status, answer = served.json("POST", "/v2/models/model/infer", body)
    assert status == 400
    assert expected in answer["error"]


def test_nan_is_refused(served):
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [float("nan")] * 16}]}
    assert served.json("POST", "/v2/models/model/infer", body)[0] == 400


@pytest.mark.parametrize("length", ["-1", "a", "99999999", "3"])
def test_a_wrong_header_length_is_refused(served, length):
    headers = {"Inference-Header-Content-Length": length}
    assert served.json("POST", "/v2/models/model/infer", tensor(X), headers)[0] == 400


@pytest.mark.parametrize("size", [-1, 1, 15, 1 << 40, "many"])
def test_a_wrong_binary_size_is_refused(served, size):
    item = {"name": "x", "datatype": "UINT8", "shape": [1, 16], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [item]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    assert served.json("POST", "/v2/models/model/infer", text + bytes(16), headers)[0] == 400


def test_other_names_and_versions_are_not_found(served):
    assert served.json("GET", "/v2/models/other")[0] == 404
    assert served.json("GET", "/v2/models/model/versions/ffff")[0] == 404
    assert served.json("GET", "/v3")[0] == 404
    status, headers, _ = served.ask("DELETE", "/v2/models/model/infer")
    assert (status, headers["Allow"]) == (405, "POST")


def test_without_a_model_it_is_alive_and_not_ready(tmp_path):
    with daemon(tmp_path) as running:
        assert running.json("GET", "/v2/health/live", token=False)[0] == 200
        assert running.json("GET", "/v2/health/ready", token=False) == (503, {"ready": False})
        assert running.json("POST", "/v2/models/model/infer", tensor(X))[0] == 503
        with pytest.raises(el.ModelError, match="no model is live"):
            running.client.partial_fit(X, Y)
