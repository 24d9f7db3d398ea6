# SPDX-License-Identifier: Apache-2.0
"""What a stranger does with a daemon: tokens that power cuts emptied, files of other kinds, notes with line ends,
bodies that are refused while they come. Each is told what to do."""

import gzip
import http.client
import io
import time
from contextlib import suppress

import numpy as np
import pytest
from daemons import CLASSES, beginner, daemon, pictures

import edgelearn as el
from edgelearn.cli import main
from edgelearn.daemon import service
from edgelearn.daemon.access import Access
from edgelearn.daemon.app import _locked
from edgelearn.daemon.config import explained
from edgelearn.daemon.events import Events
from edgelearn.daemon.pictures import png
from edgelearn.learning.gate import Gate

X, Y = pictures(40, seed=51)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    hours = [time.strftime("%H:00", time.localtime(time.time() + 3600 * more)) for more in (6, 7)]
    config = f'[govern]\nwindows = ["{hours[0]}-{hours[1]}"]\n'  # so that a job waits
    with daemon(folder / "data", "--model", beginner(folder / "m.safetensors"), config=config) as running:
        yield running


@pytest.fixture
def run(served, monkeypatch, capsys):
    """A command at the daemon: its exit code, and what it printed."""
    monkeypatch.setenv("EDGELEARN_DAEMON", f"unix:{served.folder}/api.sock")

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_a_token_is_never_empty_and_never_looks_like_an_option(tmp_path):
    (tmp_path / "token").write_text("")  # as a power cut left it
    assert all(Access.of(folder).token.isalnum() for folder in made(tmp_path, 20))
    token = Access.of(tmp_path).token
    assert len(token) == 64
    assert (tmp_path / "token").read_text() == Access.of(tmp_path).token == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def made(place, count):
    for number in range(count):
        (place / str(number)).mkdir()
        yield place / str(number)


def test_samples_are_for_the_group_at_most(tmp_path):
    _locked(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o007 == 0


def test_a_body_that_is_sent_whole_is_told_that_it_is_too_large(served):
    """http.client reads no answer before it has sent all, so a line that is cut meanwhile would hide it."""
    status, answer = served.json("POST", "/v1/samples", bytes(24 << 20))
    assert (status, "at most 4,194,304 are taken" in answer["error"]) == (413, True)


def test_a_whole_url_is_a_path_too(served):
    content = png(X[0, :, :, 0])
    headers = {"Content-Type": "image/png"}
    assert served.ask("POST", "http://board/v1/samples?label=calm", content, headers)[0] == 201
    assert served.json("GET", "//v1/status")[0] == 200
    line = http.client.HTTPConnection(*served.tcp)
    line.request("HEAD", "/v2/health/live")
    assert line.getresponse().reason == "OK"
    line.close()


def test_a_file_is_what_its_content_type_says(served):
    """Though the model declares no [input.image]: the drop folder takes pictures, too."""
    stored = io.BytesIO()
    np.save(stored, X[1])
    for kind, content in (("image/png", png(X[1, :, :, 0])), ("application/x-npy", stored.getvalue())):
        status, answer = served.json("POST", "/v1/samples?label=mid", content, {"Content-Type": kind})
        assert status == 201, answer
        data = served.json("GET", f"/v1/samples/{answer['ids'][0]}")[1]["data"]
        assert data == X[1].reshape(-1).tolist()
    for kind, expected in (("image/gif", "image/gif is not read here"), ("video/mp4", "send one of image/png")):
        status, answer = served.json("POST", "/v1/samples", b"GIF89a", {"Content-Type": kind})
        assert (status, expected in answer["error"]) == (415, True)
    headers = {"Content-Encoding": "gzip"}
    status, answer = served.json("POST", "/v2/models/model/infer", gzip.compress(b"{}"), headers)
    assert (status, "gzip are not taken: send it plain" in answer["error"]) == (415, True)
    status, answer = served.json("POST", "/v1/samples", b"no picture", {"Content-Type": "image/png"})
    assert (status, "numpy" in answer["error"]) == (400, False)


def test_training_goes_on_when_more_may_be_kept_than_before(tmp_path):
    config = '[train]\nmin_samples = 20\n[govern]\npriority = "normal"\n'
    x, y = pictures(200, seed=52)
    with daemon(tmp_path, "--model", beginner(tmp_path / "m.safetensors"), config=config, tcp=False) as running:
        running.client.partial_fit(x[:150], y[:150])
        running.client.commit()
        running.client.ask("PATCH", "/v1/config", {"train": {"replay": "3MB"}})
        running.client.partial_fit(x[150:], y[150:])
        assert running.client.commit().metrics["samples_seen"] == 200, "what was learned before is learned again"
        assert "learning begins anew, for the kept samples have capacity" in running.said()
        net = el.Net([el.Dense(3)], input=el.Input(shape=(5,), scale=1), classes=CLASSES, train={"rule": "tp-ce"})
        net.save(tmp_path / "other.safetensors")
        running.client.promote(running.client.push(tmp_path / "other.safetensors").id)
        running.client.partial_fit(np.eye(5), y[:5])
        with suppress(el.LearningError):
            running.client.commit()
        assert "200 samples have another shape than the model takes: they are left out" in running.said()
        assert running.client.ask("GET", "/v1/jobs")["jobs"][0]["state"] == "refused", "it has not failed"


def test_metrics_say_what_holds_training_back(served):
    lines = served.ask("GET", "/metrics")[2].decode().splitlines()
    held = [line for line in lines if line.startswith("edgelearn_held{") and not line.endswith(" 0")]
    assert held == ['edgelearn_held{cause="time"} 1']


def test_what_is_left_out_changes_nothing(served):
    (sample,) = served.client.partial_fit(X[:1], Y[:1])
    status, answer = served.json("PATCH", f"/v1/samples/{sample}", {})
    assert (status, "the label is missing" in answer["error"]) == (400, True)
    assert served.client.samples(limit=1)["samples"][0]["label"] == Y[0]
    one = {"name": "x", "datatype": "UINT8", "shape": [1, 16], "data": [0] * 16}
    status, answer = served.json("POST", "/v2/models/model/infer", {"inputs": [one, one]})
    assert (status, "two tensors are called x" in answer["error"]) == (400, True)


def test_a_line_of_the_log_is_one_line_whatever_is_in_it(served):
    file = (served.folder.parent / "m.safetensors").read_bytes()
    note = "from%20the%20shed%0A%3C3%3Ethe%20board%20burns"
    assert served.json("POST", f"/v1/versions?note={note}", file)[0] == 201
    lines = [line for line in served.said().splitlines() if "from the shed" in line]
    assert lines == [line for line in lines if "the board burns event=version" in line] != []


def test_commands_say_what_was_done_and_what_is_next(served, run, tmp_path):
    assert run("push", __file__) == (6, "edgelearn: not a model file, or cut before its header ends: fetch it again\n")
    assert "no version has an id that begins with 'ffff': take one of the history" in run("promote", "ffff")[1]
    assert (
        "edgelearn samples --add-class"
        in served.json("POST", "/v1/samples?label=odd", {"inputs": [tensor()]})[1]["error"]
    )
    assert run("samples", "--add-class", "odd")[0] == 0
    assert served.json("POST", "/v1/samples?label=odd", {"inputs": [tensor()]})[0] == 201
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3])
    code, said = run("samples", tmp_path / "d.npz", "--train")
    assert (code, "sent 40 samples" in said, "trains: edgelearn watch" in said) == (0, True, True)
    code, said = run("samples", tmp_path / "d.npz", "--train")
    assert (code, "sent 40 samples" in said, "is under way" in said) == (2, True, True), "what is done is said"
    assert "% of its samples learned" in run("status")[1]


def tensor():
    return {"name": "x", "datatype": "UINT8", "shape": [1, 16], "data": list(range(16))}


def test_what_needs_somebody_is_a_warning_in_the_journal(monkeypatch, capsys):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    events = Events()
    events.tell("damage", "a page is damaged")
    events.tell("job", "job 1: failed", state="failed")
    events.tell("job", "job 2: live", state="live")
    assert [line[:3] for line in capsys.readouterr().err.splitlines()] == ["<4>", "<4>", "<5>"]


def test_the_help_tells_keys_from_words():
    assert "Training begins by itself after 'every' new labelled samples" in " ".join(explained().split())


def test_nothing_held_out_is_no_accuracy_of_zero():
    nothing = np.zeros(0, np.int64)
    verdict = Gate().judge(nothing, nothing, nothing)
    assert not {"before", "after", "gain"} & set(verdict.to_json())
    assert Gate().judge(*[np.arange(3)] * 3).to_json()["after"] == 1.0


def test_a_service_is_refused_what_it_could_not_start_with(run, tmp_path):
    text = service.Service(True, listen=["0.0.0.0:8080"]).text()
    assert "--listen unix:%t/edgelearn/api.sock --listen 0.0.0.0:8080" in text, "commands find it where they look"
    with pytest.raises(el.UsageError, match="write unix:PATH or HOST:PORT"):
        service.Service(True, listen=["0.0.0.0"])
    code, said = run("service", "install", "--user", "--dry-run", "--memory", "1")
    assert (code, "give it 100 or more" in said) == (2, True)
    code, said = run("service", "install", "--user", "--dry-run", "--model", tmp_path / "none")
    assert (code, "give the path of a model.safetensors" in said) == (5, True)
