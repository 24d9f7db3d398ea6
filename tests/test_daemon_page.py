# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium: what it shows, and its buttons under a mouse."""

import os
import sys
from pathlib import Path

import pytest
from daemons import CLASSES, beginner, daemon, model, pictures, until

browser = pytest.importorskip("browser", reason="pip install --group test", exc_type=ImportError)
needs_chromium = pytest.mark.skipif(not browser.CHROMIUM, reason="chromium is not installed")

X, Y = pictures(600, seed=11)

CONFIG = """
[train]
policy = "auto"
[govern]
priority = "normal"
"""


@pytest.fixture
def served(tmp_path):
    """A daemon with a beginner, 600 labelled samples and two without a label."""
    with daemon(tmp_path / "data", "--model", beginner(tmp_path / "first.safetensors"), config=CONFIG) as running:
        running.client.partial_fit(X, Y)
        running.client.partial_fit(X[:2])
        yield running


def address(served):
    host, port = served.tcp
    return f"http://{host}:{port}/#token={served.token}"


@needs_chromium
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_its_buttons_label_train_promote_and_roll_back(served, tmp_path, width, height):
    first = served.client.history()[0].id
    with browser.page(address(served), tmp_path, width, height) as page:
        shows(page)
        label(page, served)
        page.click("document.getElementById('train')")
        page.sees("document.getElementById('state').textContent === 'live'")
        learned = served.client.history()[-1].id
        assert served.client.predict(X[0]).model_id == learned != first
        pushed = served.client.push(model(tmp_path / "second.safetensors"), "by hand").id
        row = "[...document.querySelectorAll('#versions tr')].find(row => row.textContent.includes('by hand'))"
        promote = f"{row}?.querySelector('button')"
        page.click(promote)
        page.sees(f"{promote}.textContent === 'Live'")
        assert served.client.predict(X[0]).model_id == pushed
        page.shoot(Path(os.environ.get("EDGELEARN_SHOT", tmp_path)) / f"page-{width}.png")
        page.click("document.getElementById('back')")
        page.sees(f"{promote}.textContent === 'Promote'")
        assert served.client.predict(X[0]).model_id == learned
        assert page.value("document.getElementById('problem').textContent") == ""
        assert page.value("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"


def shows(page):
    """State, samples with their pictures, no complaint."""
    page.sees("document.body?.dataset.ready")
    for name in CLASSES:
        page.sees(f"document.getElementById('classes').textContent.includes('{name}: 200')")
    assert page.value("document.querySelectorAll('#classes img[src^=\"blob:\"]').length") >= 3
    page.sees("document.getElementById('told').textContent.includes('is live')")
    assert page.value("document.getElementById('problem').textContent") == ""


def label(page, served):
    """Give one of the samples without a label the label `wild`."""
    assert served.client.samples()["counts"][""] == 2
    bare = "[...document.querySelectorAll('.class')].find(part => part.textContent.startsWith('without'))"
    page.click(f"{bare}?.querySelector('button')")
    page.sees("document.getElementById('label').open")
    page.click("document.getElementById('choice')")
    page.press("w")
    page.press("\r")
    page.sees("document.getElementById('choice').value === 'wild'")
    page.click("document.querySelector('#label button[value=save]')")
    until(lambda: served.client.samples()["counts"] == {"": 1, "calm": 200, "mid": 200, "wild": 201})


def test_it_asks_nobody_else(served):
    status, headers, content = served.ask("GET", "/", token=False)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for outside in (b"http:", b"https:", b"//cdn", b"@import"):
        assert outside not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert len(content) < 40_000
    assert sys.getsizeof(content) > 1000
