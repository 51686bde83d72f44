"""Part ``equal``: our network on the device against recorded reference outputs, and against transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file
from tests.sam3.forward import detect, oracle_outputs, with_cls_on_text_prompts
from torch import Tensor
from torch.nn import functional as F

import s3seg
from benchmarks.gpu.activations import largest_activations
from benchmarks.gpu.context import Context
from benchmarks.gpu.models import in_precision, ours_from, peer_config, random_peer
from benchmarks.gpu.report import Step
from benchmarks.gpu.stages import Stages, our_stages, their_stages
from benchmarks.gpu.timing import ROOT, free
from s3seg.results import masks
from s3seg.results.segmentation import Segmentation
from s3seg.sam3.load import load
from s3seg.sam3.model import BoxPrompts, Sam3

GOLDEN = ROOT / "tests" / "data" / "golden"
PICTURES = ROOT / "examples" / "pictures"
TOLERANCE = 1e-4
OUTPUTS = "Outputs, against transformers in fp32"
STAGES = "Relative error after each stage, text and boxes, against transformers in fp32"
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CLEAR = 8_000  # an activation this far below fp16's 65,504 leaves room for other pictures
_SHOWN = 15


def run(context: Context) -> None:
    """Run every comparison that there is time for."""
    with torch.inference_mode():
        context.report.run(
            [
                Step("recorded outputs of the reference", partial(_golden, context), 8),
                Step("embedded checkpoint", partial(_embedded, context), 10),
                Step("activations of the embedded checkpoint", partial(_embedded_activations, context), 6),
                Step("text encoder CLIP: fp32, bf16, fp16", partial(_against_transformers, context, "sam3"), 20),
                Step("LiteText: fp32, bf16, fp16", partial(_against_transformers, context, "sam3_lite_text"), 12),
            ],
            context.deadline,
        )
    errors = {
        f"{row['model']} {row['case']}, {row['what']}, {row['precision']}": row["relative"]
        for row in context.report.tables.get(OUTPUTS, [])
    }
    context.report.plot("Relative error of our outputs against transformers in fp32", errors, unit="")


def _golden(context: Context) -> None:
    expected = load_file(GOLDEN / "reference_tiny_outputs.safetensors", device=str(context.device))
    model = load(GOLDEN / "reference_tiny.safetensors", device=context.device)
    image = model.encode_image(expected["pixel_values"])
    for case in json.loads((GOLDEN / "reference_tiny.json").read_text())["cases"]:
        name = case["name"]
        if f"{name}.logits" not in expected:
            continue
        ids = torch.tensor([[298, *map(int, case["token_ids"].split()), 299]], device=context.device)
        boxes = None
        if case["boxes_cxcywh_label"]:
            corners, labels = zip(*case["boxes_cxcywh_label"], strict=True)
            boxes = _boxes(torch.tensor([corners]), torch.tensor([labels]), context.device)
        prompt = model.prompt(image, model.encode_text(ids), torch.ones_like(ids, dtype=torch.bool), boxes)
        encoded = model.encode_prompted(image, prompt)
        found = model.detect(image, encoded, prompt)
        ours = {
            "logits": found.logits[0],
            "presence": found.presence_logits,
            "boxes_cxcywh": found.boxes_cxcywh[0],
            "mask_logits": model.masks(image, encoded, prompt, found.queries)[0],
        }
        worst = max(_difference(ours[what], expected[f"{name}.{what}"]) for what in ours)
        context.report.add("Recorded reference outputs, fp32", case=name, largest_error=worst, ok=worst <= TOLERANCE)


def _against_transformers(context: Context, family: str) -> None:
    device = context.device
    peer = random_peer(peer_config(family, quick=context.quick), device)
    side, words = peer.config.vision_config.backbone_config.image_size, peer.config.text_config.vocab_size
    generator = torch.Generator(device=device).manual_seed(1)
    pixels = torch.randn(1, 3, side, side, generator=generator, device=device).clamp(-1, 1).expand(2, -1, -1, -1)
    start, end = words - 2, words - 1
    ids = torch.tensor([[start, 7, 3, 9, end], [start, 5, end, 0, 0]], device=device)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    cases = _cases(device)

    expected = {name: _theirs(peer, pixels, ids, valid, case) for name, case in cases.items()}
    rounded = {
        precision: _all_theirs(in_precision(peer, dtype), pixels.to(dtype), ids, valid, cases)
        for precision, dtype in HALF.items()
    }
    for precision, dtype in {"fp32": torch.float32, **HALF}.items():
        model = ours_from(peer, dtype)
        for name, case in cases.items():
            found = _ours(model, pixels.to(dtype), ids, valid.bool(), case)
            theirs = rounded[precision][name] if precision in HALF else expected[name]
            outputs = _Outputs(family, name, precision, found, theirs, expected[name])
            _compare(context, outputs)
            _compare_instances(context, outputs)
    _compare_stages(context, family, peer, pixels, ids, valid, cases["text and boxes"])
    largest = largest_activations(ours_from(peer, torch.float32), lambda one: _ours(one, pixels, ids, valid.bool(), {}))
    _add_activations(context, f"{family}, random weights", largest)
    del peer
    free(device)


def _cases(device: torch.device) -> dict[str, dict[str, Tensor]]:
    """Boxes and labels by case, one row per prompt; -10 marks padding, which brings in the CLS token alone."""
    boxes = torch.tensor([[[0.4, 0.5, 0.3, 0.6], [0.7, 0.3, 0.2, 0.1]], [[0.5, 0.5, 1.0, 0.9], [0.5, 0.5, 0.1, 0.1]]])
    padding = torch.full((2, 1), -10)
    return {
        "text": {"boxes": torch.full((2, 1, 4), 0.5, device=device), "labels": padding.to(device)},
        "text, no CLS": {},
        "text and boxes": {"boxes": boxes.to(device), "labels": torch.tensor([[1, 0], [1, -10]], device=device)},
    }


def _compare_stages(
    context: Context,
    family: str,
    peer: Any,
    pixels: Tensor,
    ids: Tensor,
    valid: Tensor,
    case: Mapping[str, Tensor],
) -> None:
    """Say after which stage a difference begins, so that its cause can be found without a card."""
    length = peer.config.text_config.max_position_embeddings if family == "sam3_lite_text" else ids.shape[1]
    boxes = _boxes(case["boxes"], case["labels"], pixels.device)

    def theirs(dtype: torch.dtype) -> Stages:
        one = peer if dtype == torch.float32 else in_precision(peer, dtype)
        found = their_stages(one, lambda: _raw(one, pixels.to(dtype), ids, valid, case), length)
        return found | {"text tokens": found["text tokens"][:, : ids.shape[1]]}

    exact = theirs(torch.float32)
    for precision, dtype in {"fp32": torch.float32, **HALF}.items():
        ours = our_stages(ours_from(peer, dtype), pixels.to(dtype), ids, valid.bool(), boxes)
        same = theirs(dtype)
        for stage, reference in exact.items():
            context.report.add(
                STAGES,
                model=family,
                precision=precision,
                stage=stage,
                largest_value=reference.abs().max().item(),
                largest_error=_difference(ours[stage], reference),
                relative=_relative(ours[stage], reference),
                transformers_relative=_relative(same[stage], reference),
            )


def _theirs(peer: Any, pixels: Tensor, ids: Tensor, valid: Tensor, case: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return oracle_outputs(_raw(peer, pixels, ids, valid, case))


def _raw(peer: Any, pixels: Tensor, ids: Tensor, valid: Tensor, case: Mapping[str, Tensor]) -> Any:
    boxes = {}
    if case:
        boxes = {"input_boxes": case["boxes"].to(pixels.dtype), "input_boxes_labels": case["labels"]}
    words: dict[str, Any] = {"input_ids": ids}
    if peer.config.model_type == "sam3_lite_text":  # as its reference does: padding is masked in the detector only
        padding = (0, peer.config.text_config.max_position_embeddings - ids.shape[1])
        ids, valid = F.pad(ids, padding), F.pad(valid, padding)
        words = {"text_embeds": peer.get_text_features(input_ids=ids, attention_mask=None)}
    return peer(pixel_values=pixels, attention_mask=valid, **words, **boxes)


def _all_theirs(
    peer: Any, pixels: Tensor, ids: Tensor, valid: Tensor, cases: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    return {name: _theirs(peer, pixels, ids, valid, case) for name, case in cases.items()}


def _ours(model: Sam3, pixels: Tensor, ids: Tensor, valid: Tensor, case: Mapping[str, Tensor]) -> dict[str, Tensor]:
    boxes = None
    if case and bool((case["labels"] != -10).any()):
        boxes = _boxes(case["boxes"], case["labels"], pixels.device)
    return detect(
        with_cls_on_text_prompts(model, bool(case)), model.encode_image(pixels), model.encode_text(ids), valid, boxes
    )


def _boxes(boxes: Tensor, labels: Tensor, device: torch.device) -> BoxPrompts:
    return BoxPrompts(boxes.float().to(device), (labels == 1).to(device), (labels != -10).to(device))


@dataclass(frozen=True)
class _Outputs:
    """What a case gives in a precision: ours, that of transformers, and that of transformers in fp32."""

    model: str
    case: str
    precision: str
    ours: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]
    exact: Mapping[str, Tensor]


def _compare(context: Context, outputs: _Outputs) -> None:
    """Compare our outputs, and those of transformers in the same precision, with those of transformers in fp32."""
    for what, reference in outputs.exact.items():
        ours, theirs = outputs.ours[what].float(), outputs.theirs[what].float()
        # of the largest value, because a small one can be the difference of two large ones
        largest = max(1.0, reference.abs().max().item())
        close = _difference(ours, reference) <= TOLERANCE * largest
        finite = bool(ours.isfinite().all()) or not theirs.isfinite().all()
        context.report.add(
            OUTPUTS,
            model=outputs.model,
            case=outputs.case,
            precision=outputs.precision,
            what=what,
            largest_error=_difference(ours, reference),
            relative=_relative(ours, reference),
            transformers_relative=_relative(theirs, reference),
            ok=close if outputs.precision == "fp32" else finite,
        )


def _compare_instances(context: Context, outputs: _Outputs) -> None:
    """Count what a user would see change: the order of the best twenty, and which score above 0.5."""
    reference = _scores(outputs.exact)
    best = min(20, reference.shape[1])
    order = reference.argsort(1, descending=True)[:, :best]
    changes: dict[str, int] = {}
    for name, scores in (("", _scores(outputs.ours)), ("transformers_", _scores(outputs.theirs))):
        changes[f"{name}reordered"] = int((scores.argsort(1, descending=True)[:, :best] != order).sum())
        changes[f"{name}crossed"] = int(((scores > 0.5) != (reference > 0.5)).sum())
    context.report.add(
        "Instances: places of the best twenty that changed, and scores that crossed 0.5",
        model=outputs.model,
        case=outputs.case,
        precision=outputs.precision,
        places=order.numel(),
        above_threshold=int((reference > 0.5).sum()),
        **changes,
    )


def _scores(outputs: Mapping[str, Tensor]) -> Tensor:
    presence = outputs["presence"].float().sigmoid()
    return (outputs["logits"].float().sigmoid() * presence[:, None]).nan_to_num(0)


def _embedded(context: Context) -> None:
    """Compare what users get: the example pictures, asked for everything that is drawn in them."""
    asked = _asked(quick=context.quick)
    exact = _segment(asked, str(context.device), "float32")
    if context.device.type == "cuda":
        _add_embedded(context, "fp32 on the CPU", _segment(asked, "cpu", "float32"), exact)
    _add_embedded(context, "fp32 again", _segment(asked, str(context.device), "float32"), exact)
    for name in ("bfloat16", "float16"):
        _add_embedded(context, name, _segment(asked, str(context.device), name), exact)


def _asked(*, quick: bool) -> list[tuple[str, list[str]]]:
    asked = []
    for path in sorted(PICTURES.glob("*.json")):
        labels = {one["label"] for one in json.loads(path.read_text())["instances"]}
        asked.append((str(path.with_suffix(".png")), sorted(labels)))
    return [(path, labels[:2]) for path, labels in asked[:1]] if quick else asked


def _segment(asked: list[tuple[str, list[str]]], device: str, dtype: str) -> list[Segmentation]:
    seg = s3seg.Segmenter("embedded", device=device, dtype=dtype)
    return [result for picture, prompts in asked for result in seg.segment(picture, prompts)]


def _add_embedded(context: Context, name: str, found: list[Segmentation], exact: list[Segmentation]) -> None:
    lost = added = moved = instances = 0
    emptied = 0
    overlaps: list[float] = []
    changes: list[float] = []
    for one, reference in zip(found, exact, strict=True):
        instances += len(reference)
        pairs = _matched(one, reference)
        lost += len(reference) - len(pairs)
        added += len(one) - len(pairs)
        moved += sum(a != b for a, b in zip([i for i, _, _ in pairs], sorted(i for i, _, _ in pairs), strict=True))
        emptied += bool(len(one)) != bool(len(reference))
        overlaps += [iou for _, _, iou in pairs]
        changes += [abs(float(one.scores[i]) - float(reference.scores[j])) for i, j, _ in pairs]
    context.report.add(
        "Embedded checkpoint on the example pictures, against fp32 on the device",
        precision=name,
        prompts=len(exact),
        instances=instances,
        lost=lost,
        added=added,
        out_of_order=moved,
        emptied_or_filled=emptied,
        largest_score_change=max(changes, default=None),
        mean_mask_iou=sum(overlaps) / len(overlaps) if overlaps else None,
        smallest_mask_iou=min(overlaps, default=None),
        **({"ok": not lost and not added} if name.startswith("fp32") else {}),
    )


def _matched(found: Segmentation, reference: Segmentation) -> list[tuple[int, int, float]]:
    """Pairs of instances that are the same thing (IoU above 0.5): index in each, in the order of ``reference``."""
    if not len(found) or not len(reference):
        return []
    overlap = masks.iou(list(found.rles), list(reference.rles))
    pairs = []
    for j in range(len(reference)):
        i = int(overlap[:, j].argmax())
        if overlap[i, j] > 0.5:
            pairs.append((i, j, float(overlap[i, j])))
            overlap[i] = 0
    return pairs


def _embedded_activations(context: Context) -> None:
    for dtype in (torch.float32, torch.float16):
        seg = s3seg.Segmenter("embedded", device=str(context.device), dtype=str(dtype).removeprefix("torch."))

        def run(_: Sam3, seg: s3seg.Segmenter = seg) -> None:
            for picture, prompts in _asked(quick=context.quick):
                seg.segment(picture, prompts)

        largest = largest_activations(seg.predictor.model, run)
        _add_activations(context, f"embedded, {str(dtype).removeprefix('torch.')}", largest)


def _add_activations(context: Context, model: str, largest: Mapping[str, tuple[float, int]]) -> None:
    broken = [name for name, (_, wrong) in largest.items() if wrong]
    context.report.add(
        "Range of activations",
        model=model,
        modules=len(largest),
        above_8000=sum(value > _CLEAR for value, _ in largest.values()),
        not_finite=len(broken),
        first_not_finite=broken[0] if broken else "none",
    )
    for name, (value, _) in sorted(largest.items(), key=lambda one: -one[1][0])[:_SHOWN]:
        context.report.add("Largest activations (fp16 ends at 65,504)", model=model, module=name, largest=value)


def _relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def _difference(found: Tensor, expected: Tensor) -> float:
    return (found.float() - expected.float()).abs().max().item()
