# SPDX-License-Identifier: Apache-2.0
"""Mix'n'Match of one nested net, through the command line and the SDK.

Job (JSON) on stdin: data (path), samples, blocks (hidden layers), units, epochs, seed, shares (of the multiply-adds of
the whole net, as budgets). Result: command (what `edgelearn submodel FILE --data DATA --budget ..` said for each
budget), and, by budget, what the search came to beside the best of all mixes: score, best, macs, limit, scored, over
(mixes that were scored and do not fit).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import edgelearn as el
from edgelearn.cli import main as command
from edgelearn.costs.calibration import silent
from edgelearn.net import choice


def trained(job: dict[str, Any]) -> Any:
    """The nested net."""
    with np.load(job["data"]) as data:
        x, y = data["x_train"][: job["samples"]], data["y_train"][: job["samples"]]
    model = el.load("mlp")
    layers = [*(el.Dense(job["units"], "relu") for _ in range(job["blocks"])), el.Dense(10)]
    net = el.Net(layers, input=model.input, train=model.train, nested=True, seed=job["seed"])
    return net.fit(x, y, rule="readout", epochs=job["epochs"], seed=job["seed"])


def said(net: Any, data: str, limits: list[int]) -> list[dict[str, Any]]:
    """The last line of the command for each budget."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder) / "net.safetensors")
        for limit in limits:
            heard = io.StringIO()
            line = ["submodel", str(Path(folder) / "net.safetensors"), "--data", data]
            with contextlib.redirect_stdout(heard):
                code = command([*line, "--budget", f"macs={limit}", "--json"])
            found.append(json.loads(heard.getvalue().splitlines()[-1]) | {"code": code, "limit": limit})
    return found


def searched(net: Any, data: str, limits: list[int]) -> list[dict[str, Any]]:
    """What a search under each budget comes to, beside the best of all mixes."""
    with np.load(data) as held:
        x, y = held["x_test"], held["y_test"]
    every, plan, found = choice.Scores(net, x, y), net.planned(), []
    macs, scores = {}, {}
    for levels in itertools.product(range(every.top + 1), repeat=len(choice.free_blocks(net))):
        mix = choice.spread(net, levels, every.top)
        scores[mix], macs[mix] = every.of(mix), plan(every.widths_of(mix)).macs
    for limit in limits:
        looking = choice.Scores(net, x, y)
        looking.search(plan, el.Budget(macs=limit), silent)
        chosen = max(looking.found, key=lambda mix: (looking.found[mix], -macs[mix]))
        best = max(score for mix, score in scores.items() if macs[mix] <= limit)
        over = sum(macs[mix] > limit for mix in looking.found)
        row = {"score": looking.found[chosen], "best": best, "macs": macs[chosen], "limit": limit, "over": over}
        found.append(row | {"scored": len(looking.found), "fitting": sum(value <= limit for value in macs.values())})
    return found


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train, choose, compare."""
    net = trained(job)
    whole, least = net.graph.macs, net.submodel(net.nested.widths[0]).graph.macs
    limits = [int(least + share * (whole - least)) for share in job["shares"]]
    mixes = len(net.nested.widths) ** len(choice.free_blocks(net))
    if mixes <= choice.EXHAUSTIVE:
        return {"mixes": mixes, "command": said(net, job["data"], limits)}
    return {"mixes": mixes, "searched": searched(net, job["data"], limits)}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
