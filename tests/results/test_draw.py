"""Overlays: what can be said of a picture in numbers. Whether it looks good is judged by eye."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from s3seg import images
from s3seg.errors import InvalidRequestError
from s3seg.results import draw, labels, masks
from s3seg.results.labels import Label, draw_labels
from s3seg.results.palette import assign_colors, palette_color, text_color
from tests.results.small_results import any_result, discs, result_of

GREY = np.full((200, 300, 3), 128, np.uint8)
STACK = discs(200, 300, (60, 70, 40), (120, 200, 60), (170, 60, 15))


def changed(overlay: Image.Image, image: np.ndarray = GREY) -> np.ndarray:
    return np.abs(np.array(overlay).astype(int) - image).max(axis=2) > 0


def test_the_fill_covers_the_masks_and_leaves_the_rest_of_the_picture_alone():
    drawn = changed(draw.overlay(GREY, result_of(STACK), labels=False))
    assert drawn[STACK.any(axis=0)].mean() > 0.999
    far = ~discs(200, 300, (60, 70, 46), (120, 200, 66), (170, 60, 21)).any(axis=0)
    assert not drawn[far].any()


def test_the_inside_is_the_picture_tinted_by_the_opacity():
    result = result_of(STACK[1:2])
    (color,) = {palette_color(k) for k in assign_colors(result.boxes)}
    for opacity in (0.0, 0.3, 1.0):
        pixel = np.array(draw.overlay(GREY, result, labels=False, opacity=opacity))[120, 200]
        assert np.allclose(pixel, (1 - opacity) * 128 + opacity * np.array(color), atol=2)


@pytest.mark.parametrize("option", [{"opacity": 42}, {"opacity": float("nan")}, {"color_by": "score"}])
def test_an_option_that_makes_no_sense_is_refused(option):
    with pytest.raises(InvalidRequestError, match=str(next(iter(option.values())))):
        draw.overlay(GREY, result_of(STACK), **option)


def test_the_outline_is_as_thick_on_a_large_picture_as_on_a_small_one_relative_to_it():
    def share_of_line(scale: int) -> float:
        stack = discs(400 * scale, 400 * scale, (200 * scale, 200 * scale, 150 * scale))
        image = np.zeros((400 * scale, 400 * scale, 3), np.uint8)
        overlay = np.array(draw.overlay(image, result_of(stack), labels=False, opacity=0))
        return float((overlay.max(axis=2) > 100).mean())

    assert share_of_line(4) == pytest.approx(share_of_line(2), rel=0.2)


def test_an_instance_that_fills_the_picture_has_no_line_along_its_edges():
    overlay = np.array(draw.overlay(GREY, result_of([np.ones((200, 300))]), labels=False, opacity=0.5))
    assert np.ptp(overlay.reshape(-1, 3), axis=0).max() == 0


def test_the_given_picture_is_not_changed():
    image = GREY.copy()
    picture = Image.fromarray(image)
    draw.overlay(image, result_of(STACK))
    draw.overlay(picture, result_of(STACK))
    assert np.array_equal(image, GREY)
    assert np.array_equal(np.array(picture), GREY)


def test_several_results_have_a_colour_for_each_prompt_and_one_result_for_each_instance():
    cats, dogs = result_of(STACK[:2], prompt="cat"), result_of(STACK[2:], prompt="dog")

    def tints(*results, **options):
        overlay = np.array(draw.overlay(GREY, results, labels=False, **options))
        return [tuple(overlay[y, x]) for y, x in ((60, 70), (120, 200), (170, 60))]

    by_prompt = tints(cats, dogs)
    assert by_prompt[0] == by_prompt[1] != by_prompt[2]
    assert len(set(tints(cats, dogs, color_by="instance"))) == 3
    assert len(set(tints(result_of(STACK)))) == 3
    assert len(set(tints(result_of(STACK), color_by="prompt"))) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_pil_mode_can_be_drawn_on(mode):
    overlay = draw.overlay(Image.fromarray(GREY).convert(mode), result_of(STACK))
    assert (overlay.mode, overlay.size) == ("RGB", (300, 200))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((20, 30, 3), np.uint8), "picture is"),
        (np.zeros((200, 300, 2), np.uint8), r"\(200, 300, 2\)"),
        (np.full((200, 300, 3), 7.0), "0..1"),
        (None, "NoneType"),
        ("nowhere.png", "no such file"),
    ],
)
def test_a_picture_of_another_size_or_kind_is_refused(image, says):
    with pytest.raises(InvalidRequestError, match=says):
        draw.overlay(image, result_of(STACK))


# ---- pictures are read as for segmenting ----

TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE"}
TURNS[8] = "ROTATE_270"
PHOTO = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def turned_file(path: Path, orientation: int) -> Path:
    """Write PHOTO as a camera that was held in another way does: turned, with an EXIF tag that says how."""
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(PHOTO).transpose(Image.Transpose[TURNS[orientation]]).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", sorted(TURNS))
@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "PIL", "loaded"])
def test_the_users_own_picture_is_turned_upright_as_loading_does(tmp_path, orientation, kind):
    path = turned_file(tmp_path / "photo.png", orientation)
    result = result_of(STACK, image=images.load(path).pixels)
    assert np.array_equal(result.image, PHOTO)
    picture = {
        "path": lambda: path,
        "text": lambda: str(path),
        "bytes": path.read_bytes,
        "file": lambda: io.BytesIO(path.read_bytes()),
        "PIL": lambda: Image.open(path),
        "loaded": lambda: images.load(path),
    }[kind]
    without = dataclasses.replace(result, image=None)
    assert without.overlay(picture()) == result.overlay()
    assert draw.overlay(picture(), [without]) == draw.overlay(PHOTO, [result])
    for one, expected in zip(without.crops(picture()), result.crops(), strict=True):
        assert one == expected
    assert draw.crops(picture(), without)[0] == result.crops()[0]


def test_a_picture_of_turned_size_is_refused_with_a_word_on_exif():
    with pytest.raises(InvalidRequestError, match=r"turned by 90 degrees.*EXIF"):
        draw.overlay(PHOTO.transpose(1, 0, 2), result_of(STACK))
    with pytest.raises(InvalidRequestError, match="EXIF"):
        result_of(STACK).crops(PHOTO[:100])


@pytest.mark.parametrize(
    "picture",
    [
        PHOTO / 255.0,
        PHOTO[:, :, 0],
        PHOTO.astype(np.uint16) * 257,
        np.dstack([PHOTO, np.full((200, 300), 9, np.uint8)]),
    ],
    ids=["float", "grey", "16 bits", "transparent"],
)
def test_arrays_are_read_as_loading_does(picture):
    assert draw.overlay(picture, result_of(STACK)) == draw.overlay(images.load(picture).pixels, result_of(STACK))


@pytest.mark.filterwarnings("ignore:no font on this machine")
@settings(max_examples=30)
@given(any_result())
def test_any_result_can_be_drawn_on_a_tiny_picture_whatever_its_prompt(result):
    image = np.zeros((*result.size, 3), np.uint8)
    assert draw.overlay(image, result).size == (result.size[1], result.size[0])
    assert draw.overlay(image, [result, result]).size == (result.size[1], result.size[0])


@pytest.mark.filterwarnings("ignore:no font on this machine")
@pytest.mark.parametrize("prompt", ["고양이", "猫 🐈", "\n\t\x00", "ﷺ", "a" * 5000, "é\u0301", "\u202e reversed"])
def test_prompts_that_the_font_lacks_or_that_never_end_still_give_a_label(prompt):
    plain = np.array(draw.overlay(GREY, result_of(STACK[:1]), labels=False))
    labelled = np.array(draw.overlay(GREY, result_of(STACK[:1], prompt=prompt)))
    assert (plain != labelled).any()


@pytest.mark.parametrize("prompt", ["고양이", "猫 cat", "แมว", "🐈", "ﺎﻠﻘﻃ"])
def test_letters_that_no_font_here_has_are_replaced_by_the_number_of_the_instance(monkeypatch, prompt):
    monkeypatch.setattr(labels, "_FALLBACK_FONTS", ())
    with pytest.warns(UserWarning, match="no font on this machine can draw") as warned:
        drawn = draw.overlay(GREY, result_of(STACK, prompt=prompt))
    assert len(warned) == 1
    assert repr(prompt) in str(warned[0].message)
    colored = draw.overlay(GREY, result_of(STACK), labels=False)
    boxes = [masks.box(masks.encode(mask)) for mask in STACK]
    expected = [
        Label(f"#{k}", score, box, palette_color(color), k)
        for k, score, box, color in zip(
            (1, 2, 3), result_of(STACK).scores.tolist(), boxes, assign_colors(np.array(boxes)), strict=True
        )
    ]
    draw_labels(colored, expected, gap=max(1.3, 0.003 * (200 * 300) ** 0.5))
    assert drawn == colored


def test_a_sign_that_no_font_here_has_is_left_out_of_a_label(monkeypatch):
    monkeypatch.setattr(labels, "_FALLBACK_FONTS", ())
    assert draw.overlay(GREY, result_of(STACK, prompt="cat 🐈")) == draw.overlay(GREY, result_of(STACK, prompt="cat"))


def test_scripts_from_right_to_left_are_not_drawn_backwards(monkeypatch):
    monkeypatch.setattr(labels.features, "check", lambda name: False)
    with pytest.warns(UserWarning, match="no font"):
        draw.overlay(GREY, result_of(STACK, prompt="\u05d7\u05ea\u05d5\u05dc"))


# ---- labels ----

boxes = st.tuples(st.floats(0, 290), st.floats(0, 190), st.floats(1, 300), st.floats(1, 200)).map(
    lambda b: (b[0], b[1], min(300.0, b[0] + b[2]), min(200.0, b[1] + b[3]))
)


@settings(max_examples=50)
@given(st.lists(boxes, min_size=1, max_size=12))
def test_labels_never_cover_each_other(chosen):
    colors = [(20 * k, 255, 0) for k in range(len(chosen))]
    canvas = Image.new("RGB", (300, 200))
    draw_labels(canvas, [Label("cat", 0.5, box, color) for box, color in zip(chosen, colors, strict=True)], gap=2)
    pixels = np.array(canvas)
    grounds = [np.round(np.array(color) * 240 / 255) for color in colors]  # labels are slightly translucent
    visible = {int(np.all(np.abs(pixels - ground) <= 1, axis=2).sum()) for ground in grounds} - {0}
    assert len(visible) <= 1, "all labels say the same, so those drawn show as many pixels each"


def test_labels_of_instances_that_lie_apart_are_all_drawn():
    centres = [(x, y) for y in (50, 150) for x in (50, 150, 250)]
    labels = [Label("cat", 0.5, (x - 10, y - 10, x + 10, y + 10), (x, 255, 0)) for x, y in centres]
    canvas = Image.new("RGB", (300, 200))
    draw_labels(canvas, labels, gap=2)
    reds = set(np.array(canvas)[..., 0].ravel().tolist())
    assert {round(x * 240 / 255) for x, _ in centres} <= reds
    assert np.array(canvas).max(axis=2).astype(bool).sum() > 6 * 300


def test_a_label_lies_within_the_picture_wherever_its_box_is():
    for box in [(0, 0, 300, 200), (0, 0, 5, 5), (295, 195, 300, 200), (0, 195, 5, 200), (295, 0, 300, 5)]:
        canvas = Image.new("RGB", (300, 200))
        draw_labels(canvas, [Label("a cat", 0.5, box, (255, 255, 0))], gap=2)
        ys, xs = np.nonzero(np.array(canvas).max(axis=2) > 100)
        assert 35 < np.ptp(xs) < 90, "whole, not cut by the edge"
        assert 12 < np.ptp(ys) < 30


# ---- colours ----


def test_neighbours_get_colours_far_apart():
    grid = np.array([(x, y, x + 8, y + 8) for y in range(0, 100, 10) for x in range(0, 100, 10)], dtype=float)
    colors = np.array([palette_color(k) for k in assign_colors(grid)], dtype=float)
    for k in range(100):
        for neighbour in ((k + 1) if k % 10 < 9 else None, k + 10 if k < 90 else None):
            if neighbour is not None:
                assert np.linalg.norm(colors[k] - colors[neighbour]) > 60


def test_the_first_colours_of_the_palette_differ_clearly():
    colors = np.array([palette_color(k) for k in range(8)], dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)[~np.eye(8, dtype=bool)]
    assert distances.min() > 50


@given(st.integers(0, 2000))
def test_text_on_every_palette_colour_has_contrast(index):
    def luminance(rgb):
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    color = palette_color(index)
    bright, dark = sorted([luminance(color), luminance(text_color(color))], reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5
