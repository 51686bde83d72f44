"""Masks, colours and drawing in JavaScript, held against pycocotools, OpenCV and s3seg's own palette."""

import cv2
import numpy as np
from pycocotools import mask as coco

from s3seg.results.palette import assign_colors, palette_color, text_color

MASK = 'import { Mask } from "./rle.js";\n'
DRAWING = MASK + 'import { blur, coverage } from "./drawing.js";\n'


def encoded(mask):
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def random_masks(count, *, longest=60):
    """Noise, discs, full and empty ones, of any size from 1 × 1."""
    rng = np.random.default_rng(7)
    masks = [np.ones((1, 1)), np.zeros((1, 1)), np.ones((7, 5)), np.zeros((7, 5)), np.eye(9), np.ones((1, 40))]
    for _ in range(count):
        height, width = rng.integers(1, longest, 2)
        y, x = np.mgrid[:height, :width]
        disc = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) < rng.uniform(0, longest / 2)
        masks.append(rng.random((height, width)) < rng.random() if rng.random() < 0.5 else disc)
    return [np.asarray(mask, bool) for mask in masks]


def test_masks_are_read_as_pycocotools_reads_them(run_node):
    masks = random_masks(150)
    masks.append(np.zeros((3000, 2000), bool))
    masks[-1][100:2900, 50:1900] = True  # runs that take four characters
    read = run_node(
        MASK + "print(input.map((rle) => { const m = new Mask(rle);"
        "const pixels = m.area < 1e5 ? [...m.pixels()] : null; return { pixels, area: m.area, box: m.box }; }));",
        rles := [encoded(mask) for mask in masks],
    )
    for mask, rle, one in zip(masks, rles, read, strict=True):
        assert one["area"] == mask.sum()
        x, y, width, height = coco.toBbox(rle | {"counts": rle["counts"].encode()})
        assert one["box"] == [x, y, x + width, y + height]
        if one["pixels"] is not None:
            assert np.array_equal(np.array(one["pixels"]).reshape(mask.shape), mask)


def test_a_point_is_in_the_mask_if_its_pixel_is(run_node):
    masks = random_masks(20, longest=12)
    said = run_node(
        MASK + "print(input.map((rle) => { const m = new Mask(rle); const [h, w] = rle.size; const found = [];"
        "for (let y = -1; y <= h; y++) for (let x = -1; x <= w; x++) found.push(m.covers(x + 0.5, y + 0.5));"
        "return found; }));",
        [encoded(mask) for mask in masks],
    )
    for mask, found in zip(masks, said, strict=True):
        assert np.array_equal(np.array(found).reshape(mask.shape[0] + 2, -1), np.pad(mask, 1))


def test_what_is_no_mask_is_refused(run_node):
    good = encoded(np.eye(9))
    wrong = [
        {**good, "size": [9, 8]},
        {**good, "counts": ""},
        {**good, "counts": good["counts"][:-1]},
        {**good, "counts": good["counts"] + "0ooooooooooo"},
        {**good, "counts": "é" + good["counts"]},
        {**good, "counts": "oooooooooooooo"},  # never ends
        {"size": [1, 1], "counts": "O2"},  # -1 and 2 pixels
    ]
    said = run_node(
        MASK + "print(input.map((rle) => { try { new Mask(rle); return 'read'; } catch (e) { return e.name; } }));",
        [good, *wrong],
    )
    assert said == ["read", *["RangeError"] * len(wrong)]


def test_the_palette_is_that_of_python(run_node):
    rng = np.random.default_rng(1)
    corners = [rng.uniform(0, 500, (count, 4)) for count in (0, 1, 2, 30, 100)]
    boxes = [np.concatenate([c[:, :2], c[:, :2] + c[:, 2:]], axis=1) for c in corners]
    colors = [palette_color(k) for k in range(200)]
    said = run_node(
        'import { dealColors, paletteColor, textColor } from "./colors.js";\n'
        "const palette = Array.from({ length: 200 }, (_, k) => paletteColor(k));"
        "print({ palette, text: palette.map(textColor), dealt: input.map(dealColors) });",
        [one.tolist() for one in boxes],
    )
    assert said["palette"] == [list(color) for color in colors]
    assert said["text"] == [list(text_color(color)) for color in colors]
    assert said["dealt"] == [assign_colors(one) for one in boxes]


def test_masks_keep_their_place_and_area_at_every_scale(run_node):
    masks = random_masks(30)
    said = run_node(
        DRAWING + "const at = (m, scale) => { const width = Math.ceil(m.width * scale);"
        "const height = Math.ceil(m.height * scale);"
        "return [...coverage(m, { scale, x: 0, y: 0, width, height })]; };"
        "print(input.map((rle) => [1, 2, 0.37].map((scale) => at(new Mask(rle), scale))));",
        [encoded(mask) for mask in masks],
    )
    for mask, (same, twice, less) in zip(masks, said, strict=True):
        assert np.array_equal(np.array(same).reshape(mask.shape), mask)
        assert np.array_equal(np.array(twice).reshape(2 * mask.shape[0], -1), np.kron(mask, np.ones((2, 2))))
        assert np.isclose(sum(less), mask.sum() * 0.37**2, atol=1e-3)
        assert max(less) <= 1 + 1e-5


def test_the_blur_of_a_shape_is_nearly_gaussian_and_goes_on_beyond_the_edge(run_node):
    y, x = np.mgrid[:50, :40]
    shapes = [x >= 0, x < 20, y - x > 7, np.hypot(y - 25, x - 20) < 15, np.hypot(y - 25, x) < 20]
    sigmas = [0.6, 1.3, 3.0]
    said = run_node(
        DRAWING + "print(input.masks.map((rle) => input.sigmas.map((sigma) =>"
        "[...blur(Float32Array.from(new Mask(rle).pixels()), rle.size[1], rle.size[0], sigma)])));",
        {"masks": [encoded(shape) for shape in shapes], "sigmas": sigmas},
    )
    for shape, blurred in zip(shapes, said, strict=True):
        for sigma, one in zip(sigmas, blurred, strict=True):
            expected = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
            assert np.abs(np.array(one).reshape(shape.shape) - expected).max() < 0.06


def test_among_many_instances_only_large_ones_have_a_label(run_node):
    """Labels of hundreds of small things would hide them."""
    written = run_node(
        'import { drawLabels } from "./drawing.js";'
        "const written = [];"
        "const context = new Proxy({ canvas: { width: 5000, height: 5000 }, measureText: () => ({ width: 60 }),"
        "  fillText: (text) => written.push(text) }, { get: (all, name) => all[name] ?? (() => {}) });"
        "const boxAt = (k, side) => [100 * (k % 10), 100 * Math.floor(k / 10), 100 * (k % 10) + side, 50];"
        "const small = (count) => Array.from({ length: count }, (_, k) => "
        "  ({ text: 'small', color: [0, 0, 0], box: boxAt(k, 10) }));"
        "const large = { text: 'large', color: [0, 0, 0], box: [3000, 3000, 3200, 3200] };"
        "const labelled = (labels) => { written.length = 0; drawLabels(context, labels, 12); return [...written]; };"
        "print([labelled([large, ...small(20)]), labelled([large, ...small(200)])]);"
    )
    few, many = written
    assert few == ["large"] + ["small"] * 20
    assert many == ["large"]
