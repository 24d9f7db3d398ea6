# SPDX-License-Identifier: Apache-2.0
"""A real Chromium by its DevTools protocol: a page that is looked at, clicked and typed into as people do."""

import base64
import json
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from itertools import count

from daemons import until
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)

MIDDLE = """element => {
  element.scrollIntoView({block: "center"});
  const {x, y, width, height} = element.getBoundingClientRect(), place = [x + width / 2, y + height / 2];
  return [...place, element.contains(document.elementFromPoint(...place))];
}"""


class Page:
    """The page that a browser shows."""

    def __init__(self, line):
        self._line, self._numbers = line, count(1)

    def ask(self, method, **parameters):
        """What the browser answers to a command; events that come before it are passed over."""
        number = next(self._numbers)
        self._line.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (said := json.loads(self._line.recv(timeout=60))).get("id") != number:
            pass
        assert "error" not in said, said
        return said["result"]

    def value(self, expression):
        """What an expression of JavaScript is on the page."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def sees(self, expression, seconds=60):
        """Wait until an expression is true on the page."""
        until(lambda: self.value(expression), seconds, every=0.1)

    def click(self, element):
        """The mouse goes to the middle of what an expression names, where nothing else may lie, and clicks."""
        self.sees(f"{element} && !{element}.disabled")
        x, y, hit = self.value(f"({MIDDLE})({element})")
        assert hit, f"something lies over {element}"
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, letter):
        """A key goes down and up."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=letter, text=letter if kind == "keyDown" else "")

    def shoot(self, path):
        """A picture of all of it."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def page(address, folder, width, height):
    """A browser of its own that shows an address, on a screen of so many pixels."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", address]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with connect(until(lambda: debugged(folder), 60), max_size=None) as line:
            shown = Page(line)
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
            shown.ask("Emulation.setDeviceMetricsOverride", **size)
            yield shown
    finally:
        process.terminate()
        process.wait(30)


def debugged(folder):
    """Where the page can be talked to, once it is there."""
    try:
        port = int((folder / "DevToolsActivePort").read_text().split()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            pages = [each for each in json.load(answer) if each["type"] == "page"]
    except (OSError, IndexError, ValueError):
        return None
    return pages[0]["webSocketDebuggerUrl"] if pages else None
