# SPDX-License-Identifier: Apache-2.0
"""The bridge at a real mosquitto: discovery, state, buttons, and a broker that goes away and comes back."""

import json
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest
from daemons import beginner, daemon, model, pictures, until

paho = pytest.importorskip("paho.mqtt.client", reason="pip install 'edgelearn[mqtt]'")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
pytestmark = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")

X, Y = pictures(30, seed=41)


@contextmanager
def broker(folder, port):
    """A mosquitto on a port of this machine."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: reached(port))
        yield
    finally:
        process.terminate()
        process.wait(120)


@contextmanager
def reserved():
    """A port that nobody else is given: it is bound all the time, which lets a broker listen on it, too."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def reached(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listener(port):
    """A client that keeps the last message of each topic."""
    heard = {}
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda c, u, message: heard.__setitem__(message.topic, message.payload.decode())
    client.connect("127.0.0.1", port)
    client.subscribe("#")
    client.loop_start()
    try:
        yield client, heard
    finally:
        client.disconnect()
        client.loop_stop()


def test_home_assistant_finds_it_and_its_buttons_work(tmp_path):
    with reserved() as port:
        walk(tmp_path, port)


def walk(tmp_path, port):
    config = f'[serve]\nname = "porch"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    file = beginner(tmp_path / "m.safetensors")
    with daemon(tmp_path / "data", "--model", file, config=config, tcp=False) as running:
        assert running.client.predict(X[0]).label, "a broker that is not there yet keeps nobody waiting"
        with broker(tmp_path, port), listener(port) as (client, heard):
            until(lambda: heard.get("edgelearn/porch/available") == "online")
            until(lambda: len([topic for topic in heard if topic.startswith("homeassistant/")]) == 8)
            found = json.loads(heard["homeassistant/sensor/edgelearn_porch/accuracy/config"])
            assert (found["state_topic"], found["unique_id"]) == ("edgelearn/porch/state", "edgelearn_porch_accuracy")
            assert found["device"]["identifiers"] == ["edgelearn_porch"]
            until(lambda: "edgelearn/porch/state" in heard)
            assert json.loads(heard["edgelearn/porch/state"])["version"] == 1
            second = running.client.push(model(tmp_path / "b.safetensors"))
            running.client.promote(second.id)
            until(lambda: json.loads(heard["edgelearn/porch/state"])["version"] == 2)
            button = json.loads(heard["homeassistant/button/edgelearn_porch/rollback/config"])["command_topic"]
            client.publish(button, "PRESS", qos=1)
            until(lambda: running.client.status()["live"]["number"] == 1)
            client.publish("edgelearn/porch/train", "PRESS", qos=1)
            until(lambda: "train over MQTT was refused: no sample was labelled" in running.said())
            running.kill()
            until(lambda: heard["edgelearn/porch/available"] == "offline")
