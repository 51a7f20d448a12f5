"""A folder of checked files: what is truncated, foreign or corrupted is never read as good.

A file is a header (magic, version, length and SHA-256 of the body) and a body. Writing goes
through a temporary file and a rename, so that readers see whole files only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from pathlib import Path

MAGIC = b"WENGERT\x01"
HEADER = struct.Struct("<8sQ32s")
MOST_BYTES = 512 * 2**20  # of the whole folder; the files longest unused go first


def seal(body: bytes, name: str = "") -> bytes:
    """`body` with its header. A file that was sealed under another `name` is a foreign one."""
    return HEADER.pack(MAGIC, len(body), _digest(body, name)) + body


def _digest(body: bytes, name: str) -> bytes:
    return hashlib.sha256(name.encode() + body).digest()


def unseal(data: bytes, name: str = "") -> bytes | None:
    """The body of a sealed file, or None where anything about it is wrong."""
    if len(data) < HEADER.size:
        return None
    magic, length, digest = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if magic != MAGIC or len(body) != length or _digest(body, name) != digest:
        return None
    return body


def folder() -> Path | None:
    """Where the cache is: $WENGERT_CACHE_DIR, or the user's cache folder; None if disabled."""
    chosen = os.environ.get("WENGERT_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "wengert"


def read(key: str) -> bytes | None:
    """The body stored under `key`, or None."""
    where = folder()
    if where is None:
        return None
    path = where / key
    try:
        body = unseal(path.read_bytes(), key)
        os.utime(path)
    except OSError:
        return None
    return body


def write(key: str, body: bytes) -> None:
    """Store `body` under `key`; a folder that cannot be written to is no error."""
    where = folder()
    if where is None:
        return
    try:
        where.mkdir(parents=True, exist_ok=True)
        replace(where / key, seal(body, key))
        _trim(where)
    except OSError:
        return


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _trim(where: Path) -> None:
    """Delete the files longest unused until the folder is small enough."""
    entries = []
    for entry in os.scandir(where):
        with contextlib.suppress(OSError):
            status = entry.stat()
            entries.append((status.st_mtime, status.st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
