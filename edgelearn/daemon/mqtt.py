# SPDX-License-Identifier: Apache-2.0
"""The MQTT bridge: state, version, accuracy and heat for Home Assistant, which finds them by discovery, and buttons to
train and to roll back. Needs `edgelearn[mqtt]`.

Topics, T being [mqtt] topic and N the model's name: T/N/state (JSON, retained), T/N/available (online, or offline by
the broker's will), T/N/train and T/N/rollback (anything that is sent).
"""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn import __version__
from edgelearn.errors import EdgelearnError, UsageError

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

SECONDS = 5.0
"""Between two looks at whether there is something new to say."""

SENSORS: dict[str, tuple[str, str, dict[str, str]]] = {
    "state": ("State", "{{ value_json.state }}", {"icon": "mdi:brain"}),
    "reason": ("Reason", "{{ value_json.reason }}", {"icon": "mdi:information-outline"}),
    "version": ("Version", "{{ value_json.version }}", {"icon": "mdi:tag"}),
    "accuracy": ("Accuracy", "{{ value_json.accuracy }}", {"unit_of_measurement": "%", "state_class": "measurement"}),
    "samples": ("Samples", "{{ value_json.samples }}", {"state_class": "measurement"}),
    "temperature": (
        "Temperature",
        "{{ value_json.temperature }}",
        {"device_class": "temperature", "unit_of_measurement": "°C"},
    ),
}
"""What Home Assistant shows: name, template and more of each."""

_JOINED = "is connected"

BUTTONS = {"train": "Train", "rollback": "Roll back"}


class Bridge:
    """Between a daemon and a broker. The client's thread reconnects by itself; what it gets goes to the loop.

    Raises:
        UsageError: the package is missing, or the password cannot be read.
    """

    def __init__(self, daemon: Daemon) -> None:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise UsageError("[mqtt] host needs a package: pip install 'edgelearn[mqtt]'") from error
        self._daemon, self._settings = daemon, daemon.config.mqtt
        self._name = daemon.config.serve.name
        self._base = f"{self._settings.topic}/{self._name}"
        self._loop = asyncio.get_running_loop()
        self._said = self._noted = ""
        self._client: Any = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"edgelearn-{self._name}-{socket.gethostname()}"
        )
        if self._settings.user:
            self._client.username_pw_set(self._settings.user, self._password())
        self._client.will_set(f"{self._base}/available", "offline", qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._missed
        self._client.on_disconnect = self._left
        self._client.on_message = self._heard

    def _password(self) -> str | None:
        if not self._settings.password_file:
            return None
        try:
            return Path(self._settings.password_file).read_text().strip()
        except OSError as error:
            raise UsageError(f"[mqtt] password_file cannot be read ({error.strerror}): correct its path") from error

    async def run(self) -> None:
        """Connect, and say what is new until cancelled; a broker that is not there is tried again and again."""
        self._client.connect_async(self._settings.host, self._settings.port)
        self._client.loop_start()
        try:
            while True:
                self._tell()
                await asyncio.sleep(SECONDS)
        finally:
            self._client.publish(f"{self._base}/available", "offline", qos=1, retain=True)
            self._client.disconnect()
            self._client.loop_stop()

    def _tell(self) -> None:
        text = json.dumps(self._state())
        if text != self._said and self._client.is_connected():
            self._client.publish(f"{self._base}/state", text, qos=1, retain=True)
            self._said = text

    def _state(self) -> dict[str, Any]:
        status = self._daemon.status()
        live, temperature = status["live"], status["board"].get("temperature")
        accuracy = live["metrics"].get("after") if live else None
        return {
            "state": status["state"],
            "reason": status["reason"][:250],
            "version": live["number"] if live else None,
            "accuracy": None if accuracy is None else round(100 * accuracy, 1),
            "samples": sum(status["samples"].values()),
            "temperature": None if temperature is None else round(temperature),
        }

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, *_: Any) -> None:
        """In the client's thread, at each connection: say again what a broker may have lost."""
        if reason.is_failure:
            self._note(f"refused this board ({reason}): correct [mqtt] user and password_file")
            return
        self._note(_JOINED)
        for topic, config in self._discovery():
            client.publish(topic, json.dumps(config), qos=1, retain=True)
        client.publish(f"{self._base}/available", "online", qos=1, retain=True)
        client.subscribe([(f"{self._base}/{name}", 1) for name in BUTTONS])
        self._loop.call_soon_threadsafe(self._repeat)

    def _missed(self, *_: Any) -> None:
        """In the client's thread."""
        self._note("does not answer: start it, or correct [mqtt] host and port; it is tried again and again")

    def _left(self, client: Any, userdata: Any, flags: Any, reason: Any, *_: Any) -> None:
        """In the client's thread."""
        if reason.is_failure and self._noted == _JOINED:
            self._note(f"has gone ({reason}): it is tried again and again")

    def _note(self, what: str) -> None:
        """Tell people of the broker, once for each change."""
        if what != self._noted:
            self._noted = what
            text = f"the broker at {self._settings.host}:{self._settings.port} {what}"
            self._loop.call_soon_threadsafe(self._daemon.events.tell, "mqtt", text)

    def _repeat(self) -> None:
        self._said = ""
        self._tell()

    def _discovery(self) -> list[tuple[str, dict[str, Any]]]:
        """Topics and configurations, as Home Assistant's MQTT discovery wants them."""
        node = f"edgelearn_{self._name}".replace(".", "_")
        shared = {
            "availability_topic": f"{self._base}/available",
            "device": {
                "identifiers": [node],
                "name": self._name,
                "manufacturer": "edgelearn",
                "sw_version": __version__,
            },
        }
        found: list[tuple[str, dict[str, Any]]] = []
        for key, (name, template, more) in SENSORS.items():
            config = {"name": name, "state_topic": f"{self._base}/state", "value_template": template, **more, **shared}
            found.append(
                (f"{self._settings.discovery}/sensor/{node}/{key}/config", {**config, "unique_id": f"{node}_{key}"})
            )
        for key, name in BUTTONS.items():
            config = {"name": name, "command_topic": f"{self._base}/{key}", **shared, "unique_id": f"{node}_{key}"}
            found.append((f"{self._settings.discovery}/button/{node}/{key}/config", config))
        return found

    def _heard(self, client: Any, userdata: Any, message: Any) -> None:
        """In the client's thread."""
        if not message.retain:  # a button that was pressed long ago
            name = str(message.topic).rpartition("/")[2]
            asyncio.run_coroutine_threadsafe(self._press(name), self._loop)

    async def _press(self, name: str) -> None:
        try:
            if name == "train":
                self._daemon.jobs.create("asked over MQTT")
            elif name == "rollback":
                await self._daemon.versions.rollback()
        except EdgelearnError as error:
            self._daemon.events.tell("mqtt", f"{name} over MQTT was refused: {error}")
