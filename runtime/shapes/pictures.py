"""Pictures: pixels, PNG files without any library, and animated GIFs through Pillow."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CallError
from ..values import Array, describe

MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """What a camera sees, row 0 at the top.

    pixels: u8 `[height, width, 3]`. depth: floats `[height, width]`, the distance from the
    eye (from its plane, for an orthographic camera) along each ray, inf where it meets nothing.
    normals: `[height, width, 3]`, of length 1, 0 there. parts: i32 `[height, width]`, -1 there.
    """

    pixels: Array
    depth: Array
    normals: Array
    parts: Array

    @property
    def mask(self) -> Array:
        """Where the shape is seen: bool `[height, width]`."""
        return np.isfinite(self.depth)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"<picture of {width} x {height} pixels>"

    def save(self, path: Any) -> None:
        """Write a PNG. Raises CallError for other names."""
        target = Path(os.fspath(path))
        if target.suffix.lower() != ".png":
            raise CallError("a picture is saved as PNG", expected="NAME.png", found=str(target))
        target.write_bytes(encode_png(self.pixels))

    def _repr_png_(self) -> bytes:
        """The picture in a notebook."""
        return encode_png(self.pixels)


def encode_png(pixels: Array) -> bytes:
    """u8 `[height, width]`, or `[height, width, 3 or 4]`, as a PNG file."""
    pixels = np.asarray(pixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    kinds = {1: 0, 3: 2, 4: 6}  # grey, colour, colour with opacity
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in kinds:
        raise CallError(
            "a PNG has whole numbers from 0 to 255",
            expected="uint8[height, width], or [height, width, 3 or 4]",
            found=describe(pixels),
        )
    height, width = pixels.shape[:2]
    if not height or not width:
        raise CallError("a picture has at least one pixel", found=describe(pixels))
    rows = np.ascontiguousarray(pixels).reshape(height, width * channels)
    # Each row is what it adds to the row above (filter 2), which compresses well.
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    data = np.hstack([np.full((height, 1), 2, np.uint8), rows - above]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, kinds[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data, 6)), (b"IEND", b"")]
    return MAGIC + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def save_gif(path: Any, pictures: Sequence[Picture], seconds: float = 0.05) -> None:
    """Write pictures as an animation without end, `seconds` each.

    Raises CallError where Pillow is missing, or the name does not end with .gif.
    """
    target = Path(os.fspath(path))
    if target.suffix.lower() != ".gif":
        raise CallError("an animation is saved as GIF", expected="NAME.gif", found=str(target))
    try:
        from PIL import Image
    except ImportError:
        raise CallError(
            "animated pictures need Pillow", hint="pip install 'wengert[pictures]'"
        ) from None
    if not pictures:
        raise CallError("an animation has at least one picture")
    frames = [Image.fromarray(p.pixels) for p in pictures]
    # One palette for all, so that colours do not flicker.
    palette = frames[0].quantize(128)
    first, *rest = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    first.save(target, save_all=True, append_images=rest, duration=round(1000 * seconds), loop=0)
