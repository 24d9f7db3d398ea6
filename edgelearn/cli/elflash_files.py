# SPDX-License-Identifier: Apache-2.0
"""Verbs that need no board: keygen, bundle, sign, image-info."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn.cli.elflash_output import Verbs, say, verb
from edgelearn.cli.elflash_session import IMAGES
from edgelearn.errors import UsageError

if TYPE_CHECKING:
    from edgelearn.flash.bundle import Bundle
    from edgelearn.flash.manifest import Item, Manifest


def add(verbs: Verbs) -> None:
    """Declare the verbs."""
    parser = verb(verbs, "keygen", "make a key that signs bundles", "elflash keygen -o key.pem", keygen)
    parser.add_argument("-o", "--output", default="key.pem", metavar="FILE", help="private key; .pub is beside it")
    parser = verb(
        verbs,
        "bundle",
        "pack files into one signed bundle",
        "elflash bundle model.safetensors adapter=a.bin --key key.pem --version 7 -o m.elb",
        bundle,
    )
    parser.add_argument(
        "file", nargs="+", metavar="[IMAGE=]FILE", help="IMAGE is model (the default), adapter, runtime"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the bundle")
    add_manifest(parser)
    parser.add_argument("--compress", choices=("zstd", "none"), default="zstd", help="zstd where it helps, or none")
    parser = verb(verbs, "sign", "sign a bundle in place of whoever did", "elflash sign m.elb --key key.pem", sign)
    parser.add_argument("file", metavar="BUNDLE")
    parser.add_argument("--key", required=True, metavar="FILE", help="private key of 'elflash keygen'")
    parser.add_argument("-o", "--output", metavar="FILE", help="another file than BUNDLE itself")
    parser = verb(verbs, "image-info", "say what is in a bundle, and check it", "elflash image-info m.elb", image_info)
    parser.add_argument("file", metavar="BUNDLE")
    parser.add_argument("--trust", action="append", default=[], metavar="FILE", help="check the signature by this .pub")


def add_manifest(parser: Any) -> None:
    """What a manifest says beside its files."""
    parser.add_argument("--key", metavar="FILE", help="private key of 'elflash keygen' that signs it")
    parser.add_argument("--unsigned", action="store_true", help="without a key; the board must allow that too")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="boards refuse lower than confirmed (1)")
    parser.add_argument("--for-board", action="append", metavar="NAME", help="only for this board; may be repeated")
    parser.add_argument("--arch", default="any", metavar="A", help="only for this architecture, as uname -m says it")
    parser.add_argument("--abi", type=int, metavar="N", help="the ABI that it needs (that of this edgelearn)")


def manifest_of(arguments: argparse.Namespace, files: list[str]) -> tuple[Manifest, list[bytes]]:
    """A manifest of files, and their contents.

    Raises:
        UsageError: a file that cannot be read, an image twice, neither a key nor --unsigned.
    """
    from edgelearn.flash import bundle as bundles
    from edgelearn.flash import manifest

    for flag, number, most in (("version", arguments.version, 1 << 53), ("abi", arguments.abi or 0, 1 << 16)):
        if not 0 <= number <= most:
            raise UsageError(f"--{flag} {number}: write a number from 0 to {most}")
    named = [split(text, getattr(arguments, "image", None) or "model") for text in files]
    described = [bundles.describe(path, image, arguments.version) for image, path in named]
    items, payloads = [item for item, _ in described], [data for _, data in described]
    if not arguments.key and not arguments.unsigned:
        raise UsageError(
            "nobody signs this: give --key FILE of 'elflash keygen', or --unsigned for boards that allow it"
        )
    if len({item.image for item in items}) < len(items):
        raise UsageError("an image is there twice: write model=FILE adapter=FILE runtime=FILE, each at most once")
    boards = tuple(arguments.for_board or (manifest.ANY,))
    abi = manifest.ABI if arguments.abi is None else arguments.abi
    return manifest.Manifest(tuple(items), boards, arguments.arch, abi), payloads


def split(text: str, usual: str = "") -> tuple[str, Path]:
    """[IMAGE=]FILE as its two parts."""
    image, mark, path = text.partition("=")
    return (image, Path(path)) if mark and image in IMAGES else (usual, Path(text))


def key_of(arguments: argparse.Namespace) -> Any:
    """The private key that was named, or None."""
    from edgelearn.flash import keys

    return keys.private_key(Path(arguments.key)) if arguments.key else None


def keygen(arguments: argparse.Namespace) -> int:
    """A new key pair."""
    from edgelearn.flash import keys

    public, name = keys.generate(Path(arguments.output))
    text = f"{arguments.output} signs, keep it secret; put {public} (key {name}) on boards that shall trust it"
    say(arguments, text, private=arguments.output, public=str(public), key=name)
    return 0


def bundle(arguments: argparse.Namespace) -> int:
    """One file of several."""
    from edgelearn.flash import bundle as bundles

    content, payloads = manifest_of(arguments, arguments.file)
    target = Path(arguments.output)
    bundles.write(target, content, payloads, key_of(arguments), arguments.compress)
    made = bundles.read(target)
    size, signer = target.stat().st_size, made.manifest.key
    count = f"{len(payloads)} file{'s' if len(payloads) > 1 else ''}"
    text = f"{target}: {count} in {size:,} bytes, {f'signed by key {signer}' if signer else 'unsigned'}"
    say(arguments, text, bundle=str(target), bytes=size, key=signer, images=[_item(i) for i in content.items])
    return 0


def _item(item: Item) -> dict[str, Any]:
    return {
        "image": item.image,
        "version": item.version,
        "name": item.name,
        "size": item.size,
        "sha256": item.sha256.hex(),
    }


def sign(arguments: argparse.Namespace) -> int:
    """Another signature."""
    from edgelearn.flash import bundle as bundles

    target = Path(arguments.output or arguments.file)
    name = bundles.sign(Path(arguments.file), target, key_of(arguments))
    say(arguments, f"{target} is signed by key {name}", bundle=str(target), key=name)
    return 0


def image_info(arguments: argparse.Namespace) -> int:
    """Look at a bundle, its payloads and, given keys, its signature."""
    from edgelearn.flash import bundle as bundles
    from edgelearn.flash import keys

    path = Path(arguments.file)
    found = bundles.read(path)
    bundles.check_payloads(path, found)
    checked = None
    if arguments.trust:
        keys.check(found.raw, found.signature, found.manifest.key, keys.trusted(map(Path, arguments.trust)))
        checked = True
    say(arguments, _described(found, checked), **_table(found, checked))
    return 0


def _table(found: Bundle, checked: bool | None) -> dict[str, Any]:
    content = found.manifest
    return {
        "boards": list(content.boards),
        "arch": content.arch,
        "abi": content.abi,
        "key": content.key,
        "signed": bool(found.signature),
        "signature_checked": checked,
        "images": [
            _item(i) | {"packing": f.packing, "packed": f.size} for i, f in zip(content.items, found.forms, strict=True)
        ],
    }


def _described(found: Bundle, checked: bool | None) -> str:
    content = found.manifest
    signer = f"signed by key {content.key}" if found.signature else "unsigned"
    lines = [
        f"board {', '.join(content.boards)}; architecture {content.arch}; ABI {content.abi}",
        f"{signer}{', which is trusted' if checked else ''}",
    ]
    for item, form in zip(content.items, found.forms, strict=True):
        packed = "" if form.packing == "none" else f", {form.size:,} as {form.packing}"
        lines.append(
            f"{item.image:<8} {item.name} version {item.version}, {item.size:,} bytes{packed}, {item.sha256.hex()}"
        )
    return "\n".join(lines)
