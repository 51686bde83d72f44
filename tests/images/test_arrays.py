"""Arrays and tensors become 8-bit RGB, or an error that says what is wrong with them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from s3seg import images
from s3seg.errors import ImageDecodeError

SIDES = st.integers(1, 12)


def _shapes() -> st.SearchStrategy[tuple[int, ...]]:
    channels = st.sampled_from([(), (1,), (3,)])
    return st.tuples(SIDES, SIDES, channels).map(lambda shape: (*shape[:2], *shape[2]))


def _expected(values: np.ndarray) -> np.ndarray:
    """The rule written out for values that are 8-bit already."""
    values = values if values.ndim == 3 else values[:, :, None]
    return np.broadcast_to(values, (*values.shape[:2], 3))


@given(_shapes().flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_8_bit_arrays_keep_their_values_and_share_no_memory(array: np.ndarray) -> None:
    loaded = images.load(array)
    assert np.array_equal(loaded.pixels, _expected(array))
    assert loaded.pixels.dtype == np.uint8
    assert loaded.pixels.flags.c_contiguous
    assert not np.shares_memory(loaded.pixels, array)


@given(_shapes().flatmap(lambda shape: hnp.arrays(np.uint16, shape)))
def test_16_bit_arrays_are_scaled_to_the_nearest(array: np.ndarray) -> None:
    exact = _expected(array) / 257
    assert np.abs(images.load(array).pixels - exact).max() <= 0.5


@given(_shapes().flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))))
def test_floats_are_scaled_to_the_nearest(array: np.ndarray) -> None:
    for precision in (np.float32, np.float64):
        exact = _expected(array).astype(np.float64) * 255
        assert np.abs(images.load(array.astype(precision)).pixels - exact).max() <= 0.5 + 1e-4


@given(_shapes().flatmap(lambda shape: hnp.arrays(np.bool_, shape)))
def test_bools_are_black_and_white(array: np.ndarray) -> None:
    assert np.array_equal(images.load(array).pixels, _expected(array) * np.uint8(255))


@given(st.tuples(SIDES, SIDES, st.just(4)).flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_alpha_is_composited_on_white(array: np.ndarray) -> None:
    alpha = array[:, :, 3:] / 255
    exact = array[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(images.load(array).pixels - exact).max() <= 1
    assert np.array_equal(images.load(array).pixels, images.load(Image.fromarray(array)).pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.bool_])
def test_alpha_is_composited_in_every_dtype(dtype) -> None:
    array = np.zeros((2, 3, 4), dtype)
    loaded = images.load(array)
    assert (loaded.pixels == 255).all()
    assert loaded.steps[-1] == "transparency composited on white"


def test_views_and_big_endian_arrays_are_read_right() -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(images.load(array[::-1, ::-1, ::-1]).pixels, array[::-1, ::-1, ::-1])
    assert (images.load(np.full((2, 2), 65535, ">u2")).pixels == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 20), np.uint8), "transpose"),
        (np.zeros((1, 20, 20, 3), np.uint8), "batch"),
        (np.zeros((20, 20, 2), np.uint8), "expected"),
        (np.zeros(20, np.uint8), "expected"),
        (np.zeros((), np.uint8), "expected"),
        (np.zeros((0, 20, 3), np.uint8), "no pixels"),
        (np.zeros((20, 0), np.uint8), "no pixels"),
        (np.zeros((20, 20, 0), np.uint8), "expected"),
        (np.zeros((20, 20), np.int64), "int64 have no defined range"),
        (np.zeros((20, 20), complex), "no defined range"),
        (np.array([["a"]]), "no defined range"),
        (np.full((2, 2), 200.0), "must be in 0..1"),
        (np.full((2, 2), -1.5), "undo the normalisation"),
        (np.full((2, 2), np.nan), r"some are not numbers \(NaN\)"),
        (np.full((2, 2), np.inf), "must be in 0..1"),
    ],
)
def test_what_is_no_picture_is_refused_with_advice(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(array)
    assert "array (" in str(caught.value)


def test_interpolation_may_overshoot_a_little() -> None:
    assert images.load(np.array([[1.0005, -0.0005]])).pixels[0, :, 0].tolist() == [255, 0]


@given(st.sampled_from([1, 3, 4]), st.integers(5, 9), st.integers(5, 9))
def test_tensors_may_have_their_channels_first_or_last(channels: int, height: int, width: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    expected = images.load(array).pixels
    assert np.array_equal(images.load(torch.from_numpy(array)).pixels, expected)
    assert np.array_equal(images.load(torch.from_numpy(array).permute(2, 0, 1)).pixels, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_every_float_type_and_with_gradients_are_read(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 5, 6, dtype=dtype, requires_grad=True)
    loaded = images.load(tensor)
    assert (loaded.pixels == 255).all()
    assert loaded.size == (5, 6)


def test_a_tensor_of_two_axes_is_grey() -> None:
    assert images.load(torch.zeros(5, 6, dtype=torch.uint8)).size == (5, 6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 7, 3), "either the first or the last"),
        ((1, 3, 8, 8), "batch"),
        ((5, 6, 7), "expected"),
        ((3, 0, 9), "no pix"),
    ],
)
def test_tensors_that_could_mean_two_things_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(torch.zeros(shape))
    assert "tensor (" in str(caught.value)


def test_loading_images_imports_no_torch_no_httpx_and_no_hub() -> None:
    code = (
        "import sys, numpy; from s3seg import checkpoints, images; from s3seg.images import sources;"
        "images.load(numpy.zeros((2, 2), 'u1'));"
        "checkpoints.resolve('embedded'); print({'torch', 'httpx', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
