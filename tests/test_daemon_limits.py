# SPDX-License-Identifier: Apache-2.0
"""Who is let in, and what a client can cost: size, time, connections, memory. Nothing sent makes it fail."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from daemons import daemon, model, pictures, until

import edgelearn as el
from edgelearn.client import Client

CONFIG = """
[serve]
body = "256KB"
file = "1MB"
connections = 12
head_timeout = 0.5
body_timeout = 0.5
"""

X, Y = pictures(16)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    with daemon(folder / "data", "--model", model(folder / "m.safetensors"), config=CONFIG) as running:
        yield running


def status(answer):
    return int(answer.split(b" ", 2)[1])


def head(running, path="/v1/samples", method="POST", **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {running.token}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(served):
    assert status(served.raw(head(served, Content_Length=10**12))) == 413
    assert status(served.raw(head(served, "/v1/versions", Content_Length=2 << 20))) == 413
    assert status(served.raw(head(served, "/v1/status", "GET", Content_Length=10**9))) == 200


def test_a_body_that_grows_too_large_is_refused_on_the_way(served):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    assert status(served.raw(head(served, Transfer_Encoding="chunked") + chunk * 8)) == 413


def test_a_slow_head_is_refused_and_an_idle_line_is_not(served):
    assert status(served.raw(b"GET /v2/health/live HTTP/1.1\r\nHost:")) == 408
    with socket.create_connection(served.tcp) as line:
        time.sleep(0.8)
        line.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(line.recv(4096)) == 200


def test_a_slow_body_is_refused(served):
    assert status(served.raw(head(served, Content_Length=100) + b"{")) == 408
    with socket.create_connection(served.tcp) as line:
        line.settimeout(120)
        line.sendall(head(served, Content_Length=10_000))
        said = b""
        for _ in range(40):  # a byte now and then does not keep it open
            try:
                line.sendall(b" ")
            except OSError:
                break
            time.sleep(0.1)
        while part := line.recv(4096):
            said += part
    assert status(said) == 408


def test_what_is_not_http_is_refused(served):
    assert status(served.raw(b"\x16\x03\x01 not http at all\r\n\r\n")) == 400
    assert status(served.raw(b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 40_000 + b"\r\n\r\n")) in (400, 431)
    assert status(served.raw(head(served, Content_Length="1, 2"))) == 400
    assert status(served.raw(head(served, Content_Length=-1))) == 400
    assert status(served.raw(head(served, "/v1/samples", Content_Length=5, Transfer_Encoding="gzip"))) in (400, 501)
    assert served.json("GET", "/v1/samples?limit=-1")[0] == 400
    assert served.json("GET", "/v1/samples/%ff/picture")[0] == 400


def test_two_requests_at_once_and_a_lost_answer_are_fine(served):
    once = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n%s\r\n"
    assert served.raw(once % b"" + once % b"Connection: close\r\n").count(b"HTTP/1.1 200") == 2
    with socket.create_connection(served.tcp) as line:
        line.sendall(head(served, "/v1/events", "GET"))
    assert served.json("GET", "/v2/health/live")[0] == 200


def test_tcp_needs_the_token(served):
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer ü"}):
        code, headers, _ = served.ask("GET", "/v1/status", headers=given, token=False)
        assert (code, headers["WWW-Authenticate"]) == (401, 'Bearer realm="edgelearn"')
    code, _, _ = served.ask("POST", "/v1/samples", b"x" * (1 << 20), token=False)
    assert code == 401
    host, port = served.tcp
    with Client(f"{host}:{port}") as client, pytest.raises(el.DaemonError, match="Bearer TOKEN"):
        client.status()
    with Client(f"{host}:{port}", served.token) as client:
        assert client.predict(X[0]).label
    assert (served.folder / "token").stat().st_mode & 0o777 == 0o600


def test_open_paths_tell_nothing_secret(served):
    for path in ("/openapi.json", "/v2/health/live", "/v2/health/ready"):
        code, _, content = served.ask("GET", path, token=False)
        assert code == 200
        assert served.token.encode() not in content


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_on_the_unix_socket(served):
    path = served.folder / "api.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    code = """
import os, socket, sys
os.setgroups([int(sys.argv[2])])
os.setgid(4242)
os.setuid(4242)
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
line.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print(line.recv(4096).split()[1].decode())
"""
    for group, expected in ((4242, "403"), (0, "200")):
        path.chmod(0o666)
        open_all(path.parent)
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(group)], capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == expected, done.stderr


def open_all(folder):
    """Let everybody walk to a folder."""
    for place in [folder, *folder.parents][:-2]:
        place.chmod(place.stat().st_mode | 0o011)


def test_only_so_many_connections_are_open(served):
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(served.tcp)) for _ in range(20)]
        assert served.json("GET", "/v2/health/live")[0] == 200, "idle ones make place"
        refused = []
        for _ in range(20):
            line = stack.enter_context(socket.create_connection(served.tcp))
            line.sendall(head(served, "/v1/events", "GET"))
            refused.append(status(line.recv(4096)) == 503)
        assert 8 <= sum(refused) <= 10
        assert len(lines) == 20
    until(lambda: served.json("GET", "/v2/health/live")[0] == 200)


def test_memory_is_bounded_whatever_is_sent(served):
    until(lambda: served.client.predict(X[0]))
    before = served.memory
    flood = [
        head(served, Content_Length=250_000) + b" " * 249_000,
        head(served, Transfer_Encoding="chunked") + (b"10000\r\n" + bytes(65536) + b"\r\n") * 3,
        b"GET / HTTP/1.1\r\nA: " + b"b" * 15_000,
    ]

    def send(content):
        with suppress(OSError):  # it is cut off while it sends
            for _ in range(2):
                served.raw(content, wait=1.0)

    threads = [threading.Thread(target=send, args=(flood[i % 3],)) for i in range(9)]
    for thread in threads:
        thread.start()
    peak = before
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, served.memory)
        time.sleep(0.05)
    assert peak - before < 12 * 1024
    assert served.json("GET", "/v2/health/live")[0] == 200


def test_two_daemons_do_not_share_a_folder(served, tmp_path):
    with daemon(served.folder, tcp=False, wait=False) as second:
        assert second.process.wait(120) == 8
        assert "another daemon works in" in second.said()
    taken = f"unix:{served.folder}/api.sock"
    command = [sys.executable, "-m", "edgelearn.cli.daemon", "--data-dir", tmp_path / "other", "--listen", taken]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "another daemon listens on" in done.stderr
    assert served.client.predict(X[0]).label


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "--data-dir"),
        (["--data-dir", "{}", "--listen", "here"], 2, "write unix:PATH or HOST:PORT"),
        (["--data-dir", "{}", "--listen", "127.0.0.1:99999"], 2, "write unix:PATH or HOST:PORT"),
        (["--data-dir", "{}", "--listen", "unix:/proc/none/api.sock"], 8, "choose another with --listen"),
        (["--data-dir", "/proc/none"], 8, "choose another --data-dir"),
        (["--data-dir", "{}", "--model", "none.safetensors"], 5, "cannot read none.safetensors"),
        (["--data-dir", "{}", "--model", __file__], 6, "not a model file"),
        (["--help"], 0, "[govern]: when training gives way"),
    ],
)
def test_what_cannot_start_says_why(tmp_path, arguments, code, expected):
    given = [argument.format(tmp_path) for argument in arguments]
    command = [sys.executable, "-m", "edgelearn.cli.daemon", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[serve", "cannot be read"),
        ("[serv]", "has no 'serv'"),
        ("[serve]\nnam = 1", "[serve] has no 'nam'"),
        ('[serve]\nname = "a/b"', "letters, digits"),
        ('[serve]\nbody = "much"', "no size"),
        ("[serve]\nbody = true", "no size"),
        ("serve = 3", "must be a table"),
        ('[train]\npolicy = "yolo"', "choose manual, auto, shadow"),
        ("[train]\nrehearsals = 0", "from 1 to"),
        ("[train]\nlr = nan", "from 0 to 10"),
        ("[train]\nreplay = 1", "too little"),
        ('[govern]\nwindows = ["25:00-26:00"]', "22:00-06:00"),
        ("[govern]\nwindows = 3", "22:00-06:00"),
        ('[govern]\nwindows = ["07:00-07:00"]', "22:00-06:00"),
        ("[govern]\nbattery = 1", "true or false"),
        ("[keep]\nsamples = 0", "too little"),
        ('[mqtt]\ntopic = "#"', "without wildcards"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, expected):
    from edgelearn.daemon import config

    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(el.UsageError) as caught:
        config.read(tmp_path)
    assert expected in str(caught.value)
    assert "config.toml" in str(caught.value)


def test_a_changed_configuration_is_checked_kept_and_read_again(served):
    code, answer = served.json("PATCH", "/v1/config", {"train": {"policy": "shadow"}, "govern": {"temperature": 70}})
    assert code == 200
    assert answer["train"]["policy"] == "shadow"
    assert served.json("PATCH", "/v1/config", {"train": {"policy": "yolo"}})[0] == 400
    assert served.json("PATCH", "/v1/config", {"trains": {}})[0] == 400
    assert served.json("PATCH", "/v1/config", [])[0] == 400
    from edgelearn.daemon import config

    kept = config.read(served.folder)
    assert (kept.train.policy, kept.govern.temperature, kept.serve.connections) == ("shadow", 70, 12)
    assert served.json("GET", "/v1/config")[1] == kept.to_table()


def test_the_whole_interface_holds_what_its_description_says(served):
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    served.client.partial_fit(X, Y)
    host, port = served.tcp
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        *(Path(sys.executable).parent / "st", "run", f"http://{host}:{port}/openapi.json", "--seed", "1"),
        *("-H", f"Authorization: Bearer {served.token}", "--checks", checks, "--max-examples", "3"),
        *("--phases", "coverage,fuzzing", "--exclude-path", "/v1/events", "--request-timeout", "20"),
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=served.folder)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
    assert " failed" not in served.said()


def test_metrics_are_in_the_format_of_prometheus(served):
    served.client.predict(X[0])
    code, headers, content = served.ask("GET", "/metrics")
    assert (code, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    values = {}
    for line in content.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    buckets = [v for n, v in values.items() if n.startswith("edgelearn_answer_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == values["edgelearn_answer_seconds_count"] >= 1
    assert values["edgelearn_disk_free_bytes"] > 0
    assert np.isclose(values['edgelearn_samples{label="calm"}'], served.client.samples()["counts"]["calm"])
