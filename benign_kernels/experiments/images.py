"""Images of two classes, from files that are there already: scikit-learn's digits, or IDX files as MNIST comes in."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_GZIP, _UNSIGNED_BYTES = b"\x1f\x8b", 8


@lru_cache(maxsize=2)
def two_classes(images: str, labels: str, classes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N, d) pixels and (N,) labels, +1 for the first class and −1 for the second; other images are left out.

    ``images`` and ``labels`` are paths of IDX files, compressed or not; if empty, they are scikit-learn's digits. What
    was read last is remembered: it is not to be changed in place.
    """
    if bool(images) != bool(labels):
        raise ValueError(f"images, labels: got {images!r} and {labels!r}, expected both files or neither")
    pixels, kinds = (read_idx(images), read_idx(labels)) if images else _digits()
    if kinds.ndim != 1 or pixels.ndim < 2 or len(pixels) != len(kinds):
        raise ValueError(
            f"images, labels: got arrays {pixels.shape} and {kinds.shape}, expected (N, height, width) and (N,)"
        )
    first, second = ((kinds == kind) for kind in classes)
    if not (first.any() and second.any()):
        there = ", ".join(map(str, np.unique(kinds)))
        raise ValueError(f"classes: got {classes[0]},{classes[1]}, expected two of {there}")
    chosen = first | second
    x = torch.from_numpy(pixels[chosen].reshape(int(chosen.sum()), -1).astype(np.float64))
    return x, torch.from_numpy(np.where(first[chosen], 1.0, -1.0))


def read_idx(path: str | Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, which may be compressed by gzip."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"IDX file: {path} cannot be read ({error.strerror}); nothing is downloaded") from None
    if content[:2] == _GZIP:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"IDX file: {path} is not whole: {error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise ValueError(f"IDX file: {path} begins with {content[:4].hex(' ')!r}, expected 00 00 08 and the dimensions")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else ()
    if not dimensions or len(content) - start != math.prod(shape) or len(shape) != dimensions:
        raise ValueError(f"IDX file: {path} has {len(content)} bytes, expected {start} and the product of {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: `pip install scikit-learn`, or name IDX files"
        ) from None
    found = load_digits()
    return found.images, found.target
