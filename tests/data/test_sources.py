"""Sources that read token windows and single items."""

import time
from concurrent import futures

import jax
import numpy as np
import pytest

from noisegen import data

TOKENS = np.arange(1000, 1103, dtype=np.uint16)


@pytest.mark.parametrize("length, stride", [(9, 8), (8, None), (1, 1), (103, 50)])
def test_windows_of_tokens_in_files_and_in_memory(tmp_path, length, stride):
    TOKENS.tofile(tmp_path / "tokens.bin")
    np.save(tmp_path / "tokens.npy", TOKENS)
    step = stride or length
    starts = [start for start in range(0, 103, step) if start + length <= 103]
    for tokens in (TOKENS, str(tmp_path / "tokens.bin"), tmp_path / "tokens.npy"):
        windows = data.token_windows(tokens, length, stride)
        assert len(windows) == len(starts)
        read = windows[np.arange(len(windows))[::-1]]["tokens"]
        assert read.dtype == np.int32
        assert read.tolist() == [list(range(1000 + s, 1000 + s + length)) for s in starts[::-1]]


@pytest.mark.parametrize(
    "tokens, fields, message",
    [
        (TOKENS, {"length": 104}, "103 tokens are fewer than a window of length=104"),
        (TOKENS, {"length": 0}, "length must be a whole number >= 1"),
        (TOKENS, {"length": 4, "stride": 0}, "stride must be a whole number >= 1"),
        (TOKENS[None], {"length": 4}, r"uint16 of shape \(1, 103\)"),
        (TOKENS / 2, {"length": 4}, "must be whole numbers along one axis, but they are float"),
    ],
)
def test_tokens_that_make_no_windows(tokens, fields, message):
    with pytest.raises(ValueError, match=message):
        data.token_windows(tokens, **fields)


def test_files_that_are_no_tokens_or_change(tmp_path):
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"abc")
    with pytest.raises(ValueError, match="3 bytes, which are no whole number of uint16"):
        data.token_windows(path, 1)
    with pytest.raises(FileNotFoundError):
        data.token_windows(tmp_path / "other.bin", 1)
    TOKENS.tofile(path)
    windows = data.token_windows(path, 4)
    TOKENS[:8].tofile(path)
    with pytest.raises(OSError, match=r"tokens.bin has changed its size since it was opened"):
        windows[np.array([20])]


def test_items_are_read_one_by_one_in_their_order():
    def read(number):
        time.sleep(0.01 / (number + 1))  # The last ends first.
        return {"x": np.full(3, number), "y": float(number)}

    with futures.ThreadPoolExecutor(4) as executor:
        for source in (
            data.one_by_one(range(9), read),
            data.one_by_one(range(9), read, executor),
            data.one_by_one([read(number) for number in range(9)]),
        ):
            assert len(source) == 9
            rows = source[np.array([2, 8, 0])]
            assert rows["x"].tolist() == [[2] * 3, [8] * 3, [0] * 3]
            assert rows["y"].tolist() == [2.0, 8.0, 0.0]


@pytest.mark.parametrize(
    "items, shapes",
    [
        ([{"x": np.zeros(3)}] * 2 + [{"x": np.zeros(4)}], r"{'x': \(4,\)}.* {'x': \(3,\)}"),
        ([{"x": 1.0}] * 2 + [{"y": 1.0}], r"{'y': \(\)}.* {'x': \(\)}"),
        ([{"x": 1.0}] * 2 + [{"x": 1.0, "y": 1.0}], r"{'x': \(\), 'y': \(\)}.* {'x': \(\)}"),
        ([(1.0, 2.0)] * 2 + [(1.0,)], r"\(\(\),\).* \(\(\), \(\)\)"),
    ],
)
def test_items_of_different_shapes_are_named_by_their_index(items, shapes):
    source = data.one_by_one([*items, items[0]])
    with pytest.raises(ValueError, match=f"index 2 has the shapes {shapes}: let `read` return"):
        source[np.array([0, 1, 2, 3])]
    assert len(jax.tree.leaves(source[np.array([0, 3])])[0]) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((5,), "items must have a length and indices, but are a number"),
        (([], "read"), "read must be a function of an item, but is a value of type str"),
        (([], None, 8), r"executor must be .* but is a number; ThreadPoolExecutor\(8\)"),
    ],
)
def test_wrong_arguments_of_one_by_one(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.one_by_one(*arguments)


def test_files_of_no_type_of_tokens(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npy is no NumPy file of numbers"):
        data.token_windows(tmp_path / "text.npy", 2)
    with pytest.raises(ValueError, match="dtype='tokens' is no type of numbers"):
        data.token_windows(tmp_path / "text.bin", 2, dtype="tokens")


def test_tokens_may_be_a_list():
    assert len(data.token_windows([0, 1, 2, 3], 2)) == 2
