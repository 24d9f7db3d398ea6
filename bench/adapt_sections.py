# SPDX-License-Identifier: Apache-2.0
"""What `bench.adapt` writes: a section for each study, its numbers beside what was promised."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from bench import adapt_compatible, adapt_studies, process, report, venvs
from bench.adapt_ledger import Bench
from bench.shifts import SHIFTS

PERSONS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
MARGIN = 0.03
"""Accuracy on held-out windows that adapting to a person must gain; without it the net stays."""

SPEAKERS = range(6)

RATES = {
    "adam": 1e-3,
    "galore": 2e-3,
    "galore-8bit": 2e-3,
    "galore-plain": 1e-3,
    "apollo": 3e-3,
    "apollo-mini": 3e-3,
    "rms-channels": 3e-3,
}
"""Peak rates: the best of two to four by the last 10,000 training images (docs/decisions.md, 35)."""

EPOCHS = 4


def _percent(values: list[float]) -> str:
    return f"{100 * mean(values):.1f}"


def _three(found: list[dict[str, Any]]) -> list[str]:
    """As it is, head tuned, chosen."""
    return [_percent([f[key] for f in found]) for key in ("none", "head", "chosen")]


def _verdict(holds: bool) -> str:
    return "pass" if holds else "miss"


def shifts(bench: Bench) -> str:
    """Another domain."""
    draws = bench.draws("shift")
    rows, all_of = [], []
    for name in SHIFTS:
        found = [bench.of(adapt_studies.shift, name=name, draw=draw) for draw in range(draws)]
        all_of += found
        taken = ", ".join(
            f"{way} x{[f['way'] for f in found].count(way)}" for way in dict.fromkeys(f["way"] for f in found)
        )
        rows.append([name, *_three(found), taken])
    gains = [100 * mean(f["chosen"] - f[k] for f in all_of) for k in ("none", "head")]
    rows.append(["mean", *_three(all_of), ""])
    largest = max(f["bytes"] for f in all_of)
    gained = f"{gains[0]:.1f} points (15 promised: {_verdict(gains[0] >= 15)})"
    beyond = f"{gains[1]:.1f} (3 promised: {_verdict(gains[1] >= 3)})"
    fits = f"{largest:,} bytes (65,536 allowed: {_verdict(largest <= 65536)})"
    return f"""cnn-small on the first 12,000 images of MNIST, three epochs; frozen; 50 labelled
images of another domain, {draws} draws, the first 2,000 test images. "Chosen" is the way that five folds of the 50
images preferred; test images had no say.

{report.table(["domain", "as it is, %", "head tuned, %", "chosen, %", "ways taken"], rows)}
Above no adaptation {gained}, above the tuned head {beyond}; the largest adapter file has {fits};
{mean(f["seconds"] for f in all_of):.1f} s for one choice on average."""


def persons(bench: Bench) -> str:
    """Another person."""
    draws = bench.draws("person")
    rows, all_of = [], []
    for number in PERSONS:
        found = [bench.of(adapt_studies.person, number=number, draw=d, margin=MARGIN) for d in range(draws)]
        all_of += found
        change = [100 * (f["chosen"] - f["none"]) for f in found]
        rows.append([str(number), *_three(found), f"{min(change):+.1f}"])
    before, after = mean(f["none"] for f in all_of), mean(f["chosen"] for f in all_of)
    worst = min(mean(f["chosen"] - f["none"] for f in all_of[i : i + draws]) for i in range(0, len(all_of), draws))
    return f"""har-conv1d, six epochs, without the nine persons of the official test split; each adapted to 60 windows
of the person's first recording, tested on the others; draws: {draws}. A way must gain {100 * MARGIN:.0f} points on
held-out windows.

{report.table(["person", "as it is, %", "head tuned, %", "chosen, %", "worst draw, points"], rows)}
Mean {100 * before:.1f} before, {100 * after:.1f} after ({_verdict(after > before)}); the person who loses most changes
by {100 * worst:+.1f} points (2 allowed: {_verdict(worst >= -0.02)})."""


def speakers(bench: Bench) -> str:
    """Another speaker."""
    draws = bench.draws("speaker")
    rows, all_of = [], []
    for number in SPEAKERS:
        found = [bench.of(adapt_studies.speaker, number=number, draw=draw) for draw in range(draws)]
        all_of += found
        rows.append([str(number), *_three(found)])
    gain = 100 * mean(f["chosen"] - f["none"] for f in all_of)
    return f"""kws-conv1d, 12 epochs, without one speaker of fsdd_logmel; adapted to five recordings of each digit by
that speaker, tested on the speaker's others; draws: {draws}.

{report.table(["speaker", "as it is, %", "head tuned, %", "chosen, %"], rows)}
Gain {gain:.1f} points on average (10 promised: {_verdict(gain >= 10)})."""


def optimizers(bench: Bench) -> str:
    """Small optimizer state."""
    seeds, rows, adam = bench.draws("optimizer"), [], list[float]()
    full = 8 * sum(int(np.prod(shape)) for shape in adapt_studies.SHAPES)
    for name, lr in RATES.items():
        found = [bench.of(adapt_studies.optimizer, name=name, lr=lr, seed=seed, epochs=EPOCHS) for seed in range(seeds)]
        reached, size = [100 * f["accuracy"] for f in found], found[0]["bytes"]
        adam = adam or reached
        rows.append(
            [
                *(name, f"{lr:g}", f"{size:,}", f"{100 * (1 - size / full):.1f}", f"{mean(reached):.2f}"),
                *(f"{mean(reached) - mean(adam):+.2f}", _verdict(mean(reached) >= mean(adam) - 1)),
            ]
        )
    sizes, accuracies = ["state, bytes", "less than Adam, %"], ["accuracy, %", "beside Adam, points", "within 1.0"]
    return f"""MLP 784-256-256-10 on Fashion-MNIST, hidden layers against fixed random codes (tp-ce), rank 16, batch 64,
cosine, {EPOCHS} epochs of all 60,000 images, test images; seeds: {seeds}. `galore` follows the gradient outside its
subspace as Fira does, `galore-plain` does not. `apollo` and `apollo-mini` have no first moment; `rms-channels` has one
second moment for each channel.

{report.table(["optimizer", "rate", *sizes, *accuracies], rows)}
Promised: GaLore 90 % less, its 8-bit form 96 %, APOLLO-Mini 99 %, all within 1.0 point of Adam."""


def classes(bench: Bench) -> str:
    """New classes."""
    draws = bench.draws("classes")
    found = [bench.of(adapt_studies.incremental, seed=seed) for seed in range(draws)]
    rows = [[name, _percent([f[name] for f in found])] for name in ("ridge", "nearest mean", "naive")]
    gains = [100 * mean(f["ridge"] - f[k] for f in found) for k in ("nearest mean", "naive")]
    return f"""Features of Fashion-MNIST by an MLP that learned six classes; two and two more come with five samples
each. Final accuracy on all ten; seeds: {draws}.

{report.table(["head", "accuracy, %"], rows)}
Ridge is {gains[0]:.1f} points above nearest mean (3 promised: {_verdict(gains[0] >= 3)}) and {gains[1]:.1f} above
naive fine-tuning (30 promised: {_verdict(gains[1] >= 30)})."""


def retrieval(bench: Bench) -> str:
    """Old galleries."""
    draws, rows = bench.draws("retrieval"), []
    promised = {"readout": "Procrustes at least 90 % of old/old, raw under 30 %", "tp": "Procrustes at least old/old"}
    for update in (True, False):
        for rule in ("readout", "tp-ce", "tp-l2"):
            found = [bench.of(adapt_compatible.retrieval, rule=rule, draw=d, update=update) for d in range(draws)]
            old, raw, aligned = (mean(f[k] for f in found) for k in ("old", "raw", "aligned"))
            holds = aligned >= 0.9 * old and raw < 0.3 if rule == "readout" else aligned >= old
            shares = [_percent([f[k] for f in found]) if rule == "tp-ce" else "" for k in ("old_shares", "shares")]
            columns = [_percent([f[k] for f in found]) for k in ("old", "raw", "aligned", "bt2", "new")]
            rows.append(["update" if update else "seed", rule, *columns, *shares, _verdict(holds)])
    head = ["new by", "rule", "old/old", "new/old raw", "Procrustes", "BT2", "new/new"]
    return f"""MLPs 784-256-64-10 (relu, tanh) on Fashion-MNIST, cosine. Update: the old net has seen the first 6,000
images (10 epochs), the new one, of another seed, all 60,000 (6 epochs). Seed: both have seen all. With tp rules both
have the same codes. Queries and gallery are 5,000 test images, 500 others align. Share of queries, in percent, whose
nearest neighbour in the gallery, other than themselves, has their class; draws: {draws}. Shares: the root of what
tp-ce gives each code, as it is, nothing fitted.

{report.table([*head, "shares old/old", "shares new/old", "verdict"], rows)}
Promised: of `readout` {promised["readout"]}; of tp rules {promised["tp"]}."""


def memory(bench: Bench) -> str:
    """What training takes."""
    found = bench.of(adapt_studies.memory)
    share = found["measured_bytes"] / found["inference_arena_bytes"] - 1
    planned = found["adapter_training_bytes"] / found["inference_arena_bytes"]
    return f"""Adapters of rank 8 and the head on cnn-small, 50 images: the core's arena for inference
{found["inference_arena_bytes"]:,} bytes; planned on top {found["adapter_training_bytes"]:,} ({100 * planned:.1f} %);
all that numpy was seen to take at once {found["measured_bytes"]:,}, that is {100 * share:.1f} % above the arena
(10 allowed: {_verdict(share <= 0.1)})."""


def outside(bench: Bench) -> str:
    """A file of another tool."""
    found = bench.of(_torch_backbone)
    return f"""A convolutional net built, trained and exported by PyTorch ({venvs.installed("torch")}), adapted by
`edgelearn adapt backbone.onnx data.npz -o adapted.onnx` to 50 inverted images: {100 * found["before"]:.1f} % before,
{100 * found["accuracy"]:.1f} after by {found["way"]}; the largest difference between adapted.onnx in onnxruntime and
the adaptation is {found["max_abs_diff"]:.1e}; taps {", ".join(found["taps"])}. The process took
{found["peak_process_bytes"]:,} bytes, onnxruntime's among them."""


def peft(bench: Bench) -> str:
    """Files of PEFT."""
    found = bench.of(_peft)
    return f"""A LoRA of rank 8 at both taps of an MLP 784-64-32-10, {found["bytes"]:,} bytes, loaded by
{venvs.installed("peft")}: what the last tap hands on differs by {found["ours"]:.1e} at most, the
adapter itself changes it by {found["changed"]:.1e}. A LoRA that PEFT saved (rank 4, random, rank-stable scaling), read
by `adaptation.adapted.load`: {found["theirs"]:.1e}."""


def _peft() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return adapt_compatible.exchanged(Path(folder), process.run)


def _torch_backbone() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return adapt_compatible.outside(Path(folder), process.run)
