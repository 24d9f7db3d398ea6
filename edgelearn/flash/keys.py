# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys as PEM files, signatures over manifests, and the keys that a board trusts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgelearn.errors import OutputError, TrustError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CONTEXT = b"edgelearn manifest 1\n"
"""Stands before what is signed, so that a signature of something else is none of a manifest."""


def _load(data: bytes, private: bool) -> object:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise UsageError("keys need the package cryptography: pip install 'edgelearn[serial]'") from error
    if private:
        return serialization.load_pem_private_key(data, None)
    return serialization.load_pem_public_key(data)


def key_id(public: Ed25519PublicKey) -> str:
    """Sixteen hex digits that name a key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def generate(path: Path) -> tuple[Path, str]:
    """A new private key in `path` (mode 0600) and its public key beside it as `.pub`; its path and id.

    Raises:
        OutputError: a file of that name is there, or it cannot be written.
    """
    try:
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise UsageError("keys need the package cryptography: pip install 'edgelearn[serial]'") from error
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    shown = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    public = path.with_suffix(".pub")
    _write(path, secret, 0o600)
    try:
        _write(public, shown, 0o644)
    except OutputError:  # half a pair is of no use, and in the way of the next try
        path.unlink()
        raise
    return public, key_id(key.public_key())


def _write(target: Path, data: bytes, mode: int) -> None:
    """A new file that never had another mode: a private key must not be readable for a moment either."""
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
    except OSError as error:
        raise OutputError(f"cannot write {target} ({error.strerror}): choose another name with -o") from error


def private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
        UsageError: there is none, or one of another kind.
    """
    key = _read(path, private=True)
    if not hasattr(key, "sign") or not hasattr(key, "private_bytes_raw"):
        raise UsageError(f"{path} holds a key that is not Ed25519: make one with 'elflash keygen'")
    return key  # type: ignore[return-value]


def _read(path: Path, private: bool) -> object:
    try:
        return _load(path.read_bytes(), private)
    except UsageError:
        raise
    except (OSError, ValueError, TypeError) as error:  # TypeError: it is under a password
        kind, name = ("private", "key file") if private else ("public", ".pub file")
        if isinstance(error, OSError):
            raise UsageError(f"cannot read {path} ({error.strerror}): give the {name} of 'elflash keygen'") from error
        raise UsageError(f"{path} holds no {kind} key: give the {name} that 'elflash keygen' wrote") from error


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        UsageError: there is none, or one of another kind.
    """
    key = _read(path, private=False)
    if not hasattr(key, "verify") or not hasattr(key, "public_bytes_raw"):
        raise UsageError(f"{path} holds a key that is not Ed25519: give the .pub file that 'elflash keygen' wrote")
    return key  # type: ignore[return-value]


def trusted(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Public keys by their id."""
    return {key_id(key): key for key in map(public_key, paths)}


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature of a manifest's bytes."""
    return key.sign(CONTEXT + manifest)


def check(manifest: bytes, signature: bytes, key: str, known: dict[str, Ed25519PublicKey]) -> None:
    """Whether a trusted key signed exactly this.

    Raises:
        TrustError: no signature, an unknown key, or a signature of something else.
    """
    if not signature:
        raise TrustError("it is not signed: sign it with 'elflash sign', or allow it on both sides with --unsigned")
    if key not in known:
        raise TrustError(f"the board does not trust key {key or 'none'}: put its .pub file on the board")
    from cryptography.exceptions import InvalidSignature

    try:
        known[key].verify(signature, CONTEXT + manifest)
    except InvalidSignature as error:
        raise TrustError(f"the signature is not key {key}'s of this content: get the bundle again") from error
