# SPDX-License-Identifier: Apache-2.0
"""One file with a signed manifest and its payloads: eight bytes `ELBUNDLE`, the length of the head (u32, big-endian),
the head in CBOR (manifest, signature, form and length of each payload), then the payloads one behind the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgelearn.durable import replacing, write_through
from edgelearn.errors import MismatchError, UsageError
from edgelearn.flash import cbor, keys, manifest, packing
from edgelearn.flash.manifest import Item, Manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAGIC = b"ELBUNDLE"
_HEAD_LIMIT = manifest.MAX_SIZE + 1024


@dataclass(frozen=True)
class Form:
    """How a payload travels: its packing, and where its bytes lie in the file."""

    packing: str
    offset: int
    size: int


@dataclass(frozen=True)
class Bundle:
    """A manifest with its bytes, its signature (empty if there is none) and the form of each payload."""

    manifest: Manifest
    raw: bytes
    signature: bytes
    forms: tuple[Form, ...]


def describe(path: Path, image: str, version: int) -> tuple[Item, bytes]:
    """A file as a payload, and its content.

    Raises:
        UsageError: it cannot be read or is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): give a model, adapter or runtime file") from error
    if not data:
        raise UsageError(f"{path} is empty: give a model, adapter or runtime file")
    return Item(image, version, path.name, len(data), hashlib.sha256(data).digest()), data


def signed(content: Manifest, key: Ed25519PrivateKey | None) -> tuple[bytes, bytes]:
    """The bytes of a manifest that names its key, and the signature; without a key there is none."""
    if key is None:
        return replace(content, key="").encode(), b""
    raw = replace(content, key=keys.key_id(key.public_key())).encode()
    return raw, keys.sign(raw, key)


def write(
    path: Path, content: Manifest, payloads: Sequence[bytes], key: Ed25519PrivateKey | None, pack: str = "zstd"
) -> None:
    """Write a bundle; payloads are compressed where that helps.

    Raises:
        OutputError: it cannot be written.
    """
    forms = [("none", data) if pack == "none" else packing.smallest(data) for data in payloads]
    raw, signature = signed(content, key)
    _write(path, raw, signature, forms)


def _write(path: Path, raw: bytes, signature: bytes, forms: Sequence[tuple[str, bytes]]) -> None:
    table = {"manifest": raw, "signature": signature, "payloads": [{"packing": p, "size": len(d)} for p, d in forms]}
    head = cbor.dumps(table)
    with replacing(path) as partial:
        write_through(partial, [MAGIC, len(head).to_bytes(4, "big"), head, *(data for _, data in forms)])


def read(path: Path) -> Bundle:
    """The head of a bundle; its payloads stay in the file.

    Raises:
        UsageError: the file cannot be read.
        MismatchError: it is no bundle, or it is damaged, cut short or too long.
    """
    try:
        with path.open("rb") as stream:
            return parse(stream, path.stat().st_size)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): give a bundle") from error


def parse(stream: BinaryIO, size: int) -> Bundle:
    """The head of a bundle of `size` bytes.

    Raises:
        MismatchError: it is no bundle, or it is damaged, cut short or too long.
    """
    start = stream.read(len(MAGIC) + 4)
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if not start.startswith(MAGIC) or not 0 < length <= _HEAD_LIMIT:
        raise MismatchError("no bundle of edgelearn: make one with 'elflash bundle'")
    try:
        table = cbor.loads(stream.read(length))
        raw, signature = cbor.octets(table, "manifest"), cbor.octets(table, "signature")
        content = manifest.decode(raw)
        forms = tuple(_forms(table["payloads"], len(start) + length))
    except (KeyError, TypeError, ValueError) as error:
        raise MismatchError(f"the head of the bundle is damaged ({error}): make it again") from error
    end = forms[-1].offset + forms[-1].size if forms else 0
    if len(forms) != len(content.items) or end != size:
        raise MismatchError(f"the bundle has {size} bytes and announces {end}: copy it again, it is cut or too long")
    return Bundle(content, raw, signature, forms)


def _forms(payloads: list[dict[str, object]], at: int) -> Iterator[Form]:
    for payload in payloads:
        form, size = payload["packing"], payload["size"]
        if form not in ("none", "zstd") or not isinstance(size, int) or not 0 < size <= manifest.MAX_IMAGE:
            raise ValueError("a payload of another form")
        yield Form(form, at, size)
        at += size


def payload(path: Path, form: Form) -> bytes:
    """A payload as it travels."""
    with path.open("rb") as stream:
        stream.seek(form.offset)
        return stream.read(form.size)


def unpacked(path: Path, bundle: Bundle, index: int) -> bytes:
    """A payload as it will be on the board.

    Raises:
        MismatchError: it is not what the manifest says.
    """
    item, form = bundle.manifest.items[index], bundle.forms[index]
    with path.open("rb") as stream:
        part = packing.Slice(stream, form.offset, form.size)
        data = b"".join(packing.unpack(form.packing, part, item.size))
    if hashlib.sha256(data).digest() != item.sha256:
        raise MismatchError(f"the {item.image} in {path} is not what its manifest says: make the bundle again")
    return data


def items(path: Path, image: str) -> tuple[Item, ...]:
    """What a file would be on the board: the items of a bundle, or a bare file as `image`.

    Raises:
        UsageError: it cannot be read.
        MismatchError: a bundle that is damaged.
    """
    item, data = describe(path, image, 0)
    return read(path).manifest.items if data.startswith(MAGIC) else (item,)


def check_payloads(path: Path, bundle: Bundle) -> None:
    """Whether each payload unpacks to what the manifest says.

    Raises:
        MismatchError: one does not.
    """
    for index in range(len(bundle.forms)):
        unpacked(path, bundle, index)


def sign(path: Path, target: Path, key: Ed25519PrivateKey) -> str:
    """Sign a bundle, in place of whoever signed it before; the id of the key.

    Raises:
        MismatchError: a payload is damaged, so that there is nothing to vouch for.
        OutputError: it cannot be written.
    """
    bundle = read(path)
    check_payloads(path, bundle)
    raw, signature = signed(bundle.manifest, key)
    _write(target, raw, signature, [(form.packing, payload(path, form)) for form in bundle.forms])
    return keys.key_id(key.public_key())
