"""Images come from files that are there, and a file that is not what it should be is named."""

import gzip
import struct

import numpy as np
import pytest

from benign_kernels.experiments import images


def idx(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def files(tmp_path):
    pixels = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3)
    (tmp_path / "images").write_bytes(idx(pixels))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(np.array([3, 1, 7, 3, 7, 1], np.uint8))))
    return str(tmp_path / "images"), str(tmp_path / "labels.gz"), pixels


def test_two_classes_of_idx_files(files):
    x, y = images.two_classes(files[0], files[1], (7, 3))
    assert y.tolist() == [-1, 1, -1, 1]
    np.testing.assert_array_equal(x.numpy(), files[2].reshape(6, 6)[[0, 2, 3, 4]])


def test_digits_are_there_without_files():
    pytest.importorskip("sklearn")
    x, y = images.two_classes("", "", (0, 1))
    assert x.shape == (360, 64)
    assert (y == 1).sum() == 178
    assert x.max() == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with '', expected 00 00 08"),
        (b"\x89PNG", "begins with '89 50 4e 47', expected 00 00 08"),
        (idx(np.zeros((2, 2), np.float32), kind=13), "begins with '00 00 0d 02'"),
        (idx(np.zeros((5, 2), np.uint8))[:-1], "has 21 bytes, expected 12 and the product of \\(5, 2\\)"),
        (idx(np.zeros((5, 2), np.uint8))[:7], "has 7 bytes"),
        (b"\0\0\x08\0", "has 4 bytes"),
        (gzip.compress(idx(np.zeros((5, 2), np.uint8)), mtime=0)[:-9], "is not whole"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"IDX file: {path} {message}"):
        images.read_idx(path)


def test_what_does_not_fit_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"IDX file: /nowhere cannot be read \(No such file or directory\)"):
        images.two_classes("/nowhere", files[1], (3, 7))
    with pytest.raises(ValueError, match="expected both files or neither"):
        images.two_classes(files[0], "", (3, 7))
    with pytest.raises(ValueError, match="classes: got 3,4, expected two of 1, 3, 7"):
        images.two_classes(files[0], files[1], (3, 4))
    with pytest.raises(ValueError, match=r"got arrays \(6,\) and \(6,\)"):
        images.two_classes(files[1], files[1], (3, 7))
