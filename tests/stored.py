# SPDX-License-Identifier: Apache-2.0
"""A store with a few versions in it, and how one of its files is damaged."""

from edgelearn.store import Store

CONTENT = [bytes([i]) * (1000 + i) for i in range(12)]


def live(store, content):
    version = store.activate(store.commit(content).id)
    assert store.current() == version
    return version


def filled(folder, n=3, **settings):
    """A store in which n versions were live one after the other."""
    store = Store(folder, **settings)
    return store, [live(store, CONTENT[i]) for i in range(n)]


def damage(path, at=500):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
