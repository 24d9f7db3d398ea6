# SPDX-License-Identifier: Apache-2.0
"""Small .wav and picture files for tests, made by Python's own `wave` and by Pillow."""

from __future__ import annotations

import struct
import wave

import numpy as np
from PIL import Image as Pillow


def write_wav(path, waveform, rate=8000):
    """A 16-bit file; floats have full scale 1, (n,) or (n, channels)."""
    values = np.asarray(waveform)
    if values.dtype.kind == "f":
        values = np.clip(np.rint(values * 32768), -32768, 32767)
    values = values.astype("<i2").reshape(len(values), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(values.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(values.tobytes())
    return path


def riff(*chunks):
    """The bytes of a .wav file with these (name, content) chunks."""
    body = b"WAVE"
    for name, content in chunks:
        body += struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fmt(tag, channels, rate, bits):
    """The content of a chunk `fmt `."""
    block = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * block % (1 << 32), block, bits)


def extensible(tag, channels, rate, bits):
    """The same in the extensible format: 22 more bytes, of which the last 16 are the format's GUID."""
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return fmt(0xFFFE, channels, rate, bits) + struct.pack("<HHI", 22, bits, 0) + guid


def write_picture(path, pixels, **options):
    """A .png or .jpg file of an array, or of a Pillow image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(np.asarray(pixels))
    picture.save(path, **options)
    return path


def tone(hertz, rate=8000, seconds=0.5, amplitude=0.3, phase=0.0):
    """A sine."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate + phase)


def tone_folder(root, pitches, count=10, rate=8000, seed=0):
    """One sub-folder per name of `pitches`, each with `count` noisy tones around that pitch (Hz)."""
    rng = np.random.default_rng(seed)
    for name, hertz in pitches.items():
        for i in range(count):
            wobble, length = rng.uniform(0.95, 1.05), rng.uniform(0.3, 0.5)
            sound = tone(hertz * wobble, rate, length, phase=rng.uniform(0, 6))
            write_wav(root / name / f"{i:02}.wav", sound + rng.normal(0, 0.01, len(sound)), rate)
    return root


def color_folder(root, colors, count=10, suffix=".jpg", shape=(12, 16), seed=0):
    """One sub-folder per name of `colors`, each with `count` noisy pictures of that colour (r, g, b) or grey level."""
    rng = np.random.default_rng(seed)
    for name, color in colors.items():
        for i in range(count):
            noise = rng.normal(0, 12, (*shape, *np.shape(color)))
            pixels = np.clip(np.asarray(color) + noise, 0, 255).astype(np.uint8)
            write_picture(root / name / f"{i:02}{suffix}", pixels)
    return root
