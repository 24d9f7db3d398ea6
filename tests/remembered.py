# SPDX-License-Identifier: Apache-2.0
"""An oracle whose answers are kept: what one engine was compared with is not computed again for the next one."""

from __future__ import annotations

import pickle
from copy import deepcopy
from hashlib import blake2b

KNOWN = {}
"""What a call gave, by a digest of the net and of every call up to it."""


class Remembered:
    """Stands for an oracle of a kind, made as `kind(*start)`: the oracle itself is made, and taken through the calls so
    far, where a call is not known yet."""

    def __init__(self, kind, *start):
        self.start, self.waiting, self.oracle = pickle.dumps((kind, start)), [], None
        self.key = blake2b(self.start).digest()

    def step(self, *given, **named):
        return self.ask("step", given, named)

    def forward(self, x):
        return self.ask("forward", (x,), {})

    def outputs(self, *given):
        return self.ask("outputs", given, {})

    @property
    def params(self):
        return self.ask("__getattribute__", ("params",), {})

    def __getattr__(self, name):
        self.catch_up()
        return getattr(self.oracle, name)

    def ask(self, name, given, named):
        call = pickle.dumps((name, given, named))
        self.key = blake2b(self.key + call).digest()
        self.waiting.append(call)
        if self.key not in KNOWN:
            KNOWN[self.key] = deepcopy(self.catch_up())
        return deepcopy(KNOWN[self.key])

    def catch_up(self):
        """What the last of the calls gives that the oracle has not seen."""
        if self.oracle is None:
            kind, start = pickle.loads(self.start)
            self.oracle = kind(*start)
        found = None
        for name, given, named in map(pickle.loads, self.waiting):
            found = getattr(self.oracle, name)(*given, **named)
        self.waiting.clear()
        return found
