# SPDX-License-Identifier: Apache-2.0
"""The part of CBOR (RFC 8949) that SMP uses: integers, strings of bytes and of text, arrays, maps, booleans, null and
floats, with definite or, as Zephyr writes them, indefinite lengths. No tags.

What comes in is bounded: nesting, the number of items, and no length is believed that the message cannot hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from edgelearn.errors import EdgelearnError

MAX_DEPTH = 8
"""Nesting of arrays and maps; the deepest message of SMP has three."""
MAX_ITEMS = 256
"""Values in a message, keys included: a list of six slots has about a hundred. Bounds the memory of small items."""

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(8)
_FALSE, _TRUE, _NULL, _UNDEFINED, _HALF, _SINGLE, _DOUBLE = 20, 21, 22, 23, 25, 26, 27
_INDEFINITE = 31
_BREAK = object()
"""What the byte 0xff decodes to: the end of an indefinite length."""
_FLOATS = {_HALF: ">e", _SINGLE: ">f", _DOUBLE: ">d"}
_SIMPLE = {_FALSE: False, _TRUE: True, _NULL: None, _UNDEFINED: None}


class CborError(EdgelearnError, ValueError):
    """Bytes that are not a message of this subset; the frame that held them is sent again."""


def dumps(value: Any) -> bytes:
    """Encode with the shortest heads, maps in the order of their keys in the dict.

    Raises:
        CborError: a value of another type, or an integer of more than 64 bits.
    """
    return b"".join(_encode(value))


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Decode one value that fills `data`.

    Raises:
        CborError: cut short, too deep, too many items, a tag, bytes left over.
    """
    reader = _Reader(memoryview(data))
    value = reader.value(0)
    if value is _BREAK or reader.at != len(data):
        raise CborError(f"bytes left over after {reader.at} of {len(data)}: send the message again")
    return value


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for extra, code in ((24, "B"), (25, "H"), (26, "I"), (27, "Q")):
        if number < 1 << 8 * struct.calcsize(code):
            return struct.pack(f">B{code}", major << 5 | extra, number)
    raise CborError(f"the integer {number} has more than 64 bits: send it as text")


def octets(table: Mapping[str, Any], name: str) -> bytes:
    """The byte string of that name. Whoever sent the table may have put anything there, and `bytes` of a number is that
    many zeros: all of the memory, for a large one.

    Raises:
        KeyError: there is none.
        TypeError: it is something else.
    """
    value = table[name]
    if not isinstance(value, bytes):
        raise TypeError(f"{name}, which is no byte string,")
    return value


def _encode(value: Any) -> Iterator[bytes]:
    if value is None or isinstance(value, bool):
        yield bytes((_OTHER << 5 | {False: _FALSE, True: _TRUE, None: _NULL}[value],))
    elif isinstance(value, int):
        yield _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    elif isinstance(value, float):
        yield struct.pack(">Bd", _OTHER << 5 | _DOUBLE, value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        yield _head(_BYTES, len(value))
        yield bytes(value)
    elif isinstance(value, str):
        text = value.encode()
        yield _head(_TEXT, len(text))
        yield text
    elif isinstance(value, (list, tuple)):
        yield _head(_ARRAY, len(value))
        for item in value:
            yield from _encode(item)
    elif isinstance(value, dict):
        yield _head(_MAP, len(value))
        for key, item in value.items():
            yield from _encode(key)
            yield from _encode(item)
    else:
        raise CborError(f"a {type(value).__name__} has no place in a message: send it as text")


class _Reader:
    """One walk over a message."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.items = data, 0, 0

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise CborError(f"cut short at byte {len(self.data)}: send the message again")
        self.at += count
        return self.data[self.at - count : self.at]

    def value(self, depth: int) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS or depth > MAX_DEPTH:
            raise CborError(f"more than {MAX_ITEMS} items or {MAX_DEPTH} levels: send a smaller message")
        head = self.take(1)[0]
        major, extra = head >> 5, head & 31
        if major == _OTHER:
            return self._other(extra)
        length = self._argument(extra)
        if major in (_UNSIGNED, _NEGATIVE) and length is not None:
            return length if major == _UNSIGNED else -1 - length
        if major in (_BYTES, _TEXT):
            return self._string(major, length)
        if major == _ARRAY:
            return list(self._items(length, depth))
        if major == _MAP:
            return self._map(length, depth)
        raise CborError(f"a head {head:#04x} that SMP does not use: send the message again")

    def _argument(self, extra: int) -> int | None:
        """The number after a head; None for an indefinite length."""
        if extra < 24:
            return extra
        if extra == _INDEFINITE:
            return None
        if extra > 27:
            raise CborError(f"a reserved length {extra}: send the message again")
        return int.from_bytes(self.take(1 << extra - 24), "big")

    def _other(self, extra: int) -> Any:
        if extra == _INDEFINITE:
            return _BREAK
        if extra in _SIMPLE:
            return _SIMPLE[extra]
        if extra in _FLOATS:
            return struct.unpack(_FLOATS[extra], self.take(struct.calcsize(_FLOATS[extra])))[0]
        raise CborError(f"a simple value {extra} that SMP does not use: send the message again")

    def _string(self, major: int, length: int | None) -> bytes | str:
        whole = bytes(self.take(length)) if length is not None else b"".join(self._parts(major))
        if major == _BYTES:
            return whole
        try:
            return whole.decode()
        except UnicodeDecodeError as error:
            raise CborError("text that is not UTF-8: send the message again") from error

    def _parts(self, major: int) -> Iterator[bytes]:
        """The definite strings that an indefinite one is made of."""
        while (head := self.take(1)[0]) != 0xFF:
            self.items += 1
            length = self._argument(head & 31)
            if head >> 5 != major or length is None or self.items > MAX_ITEMS:
                raise CborError("a string in parts of another kind: send the message again")
            yield bytes(self.take(length))

    def _items(self, length: int | None, depth: int) -> Iterator[Any]:
        count = 0
        while length is None or count < length:
            item = self.value(depth + 1)
            if item is _BREAK:
                if length is None:
                    return
                raise CborError("an end where an item was announced: send the message again")
            yield item
            count += 1

    def _map(self, length: int | None, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        pairs = self._items(None if length is None else 2 * length, depth)
        for key in pairs:
            value = next(pairs, _BREAK)
            if value is _BREAK or not isinstance(key, (str, int)) or key in found:
                raise CborError("a map with a key that is odd, twice there or without a value: send the message again")
            found[key] = value
        return found
