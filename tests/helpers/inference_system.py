"""The inference side of a service in memory, for tests: ports, a scripted network, and one user who submits."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from s3seg import images
from s3seg.adapters.memory import (
    MemoryAccounts,
    MemoryNotifier,
    MemoryObjectStore,
    MemoryTables,
    MemoryTaskQueue,
    MemoryTaskStore,
)
from s3seg.decoding import DecodingPool
from s3seg.inference.batcher import Batcher
from s3seg.inference.engine import Engine, EngineOptions
from s3seg.inference.network import EncodedImage, ResizedImage
from s3seg.inference.network_queue import Limits
from s3seg.inference.pipeline import Pipeline
from s3seg.inference.worker import WorkerLimits
from s3seg.results.hints import Hint
from s3seg.results.segmentation import ModelInfo
from s3seg.results.windows import Window, cut_pixels
from s3seg.sam3.click_predictor import ClickedMasks
from s3seg.sam3.device import DeviceStatus
from s3seg.sam3.predictor import Detections
from s3seg.tasks.clicks import Clicks, click_texts
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity, NewImage
from s3seg.tasks.state_machine import Rules
from s3seg.tasks.tiles import Tile
from s3seg.tasks.visual import visual_of_clicks, visual_of_tiles

PICTURES = Path(__file__).parent.parent.parent / "examples" / "pictures"
STREET = (PICTURES / "street.png").read_bytes()
USER = Identity(user_id=str(uuid.uuid4()), tier=Tier.ENTERPRISE)


def png(color: int = 128, size: tuple[int, int] = (8, 6)) -> bytes:
    """A picture (width, height) of one grey."""
    buffer = BytesIO()
    Image.new("RGB", size, (color, color, color)).save(buffer, format="PNG")
    return buffer.getvalue()


class CountingMetrics:
    """Counts the calls of each kind."""

    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()
        self.batches: list[tuple[int, int]] = []
        self.splits = 0
        self.hits: Counter[bool] = Counter()
        self.ends: Counter[str] = Counter()

    def stage(self, name: str, seconds: float) -> None:
        self.stages[name] += 1

    def batch(self, *, pictures: int, prompts: int) -> None:
        self.batches.append((pictures, prompts))

    def split(self) -> None:
        self.splits += 1

    def cache(self, *, hit: bool) -> None:
        self.hits[hit] += 1

    def ended(self, code: str) -> None:
        self.ends[code] += 1


class ScriptedNetwork:
    """A network that finds the left half (score 0.75) and the right (0.25), for every prompt but "nothing".

    Attributes:
        go: The network waits for it in every pass: clear it to let work pile up.
        began: Set when a pass begins.
        fail: Raised by passes while there are any left: the next one first.
        encoded, asked: Pictures of each encoding pass; prompts of each decoding pass.
    """

    threshold = 0.5
    model = ModelInfo("obedient", "1", "cpu", "float32")
    parameters = 7
    weights_bytes = 28
    concept_hint = "concepts are scripted"
    input_side = 64

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.fail: list[Exception | None] = []
        self.encoded: list[int] = []
        self.asked: list[list[str]] = []
        self.reads = 0
        self.tile_reads: list[int] = []
        self.freed = 0
        self.threads: set[str] = set()
        self.inside: set[int] = set()

    problem: str | None = None

    def device_status(self) -> DeviceStatus:
        return DeviceStatus(True, "obedient 9000", 1.0, 2.0)

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        self.reads += 1
        loaded = images.load(content, name=name)
        return ResizedImage(loaded.pixels, loaded.full_size)

    async def read_in(self, pool: DecodingPool, content: bytes, *, name: str, user_id: str) -> ResizedImage:
        return self.read(content, name=name)

    def read_tiles(self, content: bytes, windows: Sequence[Window], *, name: str) -> list[ResizedImage]:
        self.tile_reads.append(len(windows))
        tiles = cut_pixels(images.load(content, name=name).pixels, windows, name=name)
        return [ResizedImage(tile, tile.shape[:2]) for tile in tiles]

    def check_prompts(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            if len(prompt) > 40:
                from s3seg.errors import PromptError

                raise PromptError("the prompt has 99 tokens, and the model takes at most 32")

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        self._pass()
        self.encoded.append(len(pictures))
        return [EncodedImage(picture.pixels, picture.size, 100) for picture in pictures]

    def hints(self, prompt: str, *, photograph: bool = False) -> tuple[Hint, ...]:
        return ()

    def predict(self, pairs: Sequence[tuple[EncodedImage, str]]) -> list[Detections]:
        self.asked.append([prompt for _, prompt in pairs])
        left = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]])  # the left half, and the right
        return [
            self.detections(left, scores=[0.75, 0.25]) if prompt != "nothing" else self.detections(left[:0], scores=[])
            for _, prompt in pairs
        ]

    prompt_kinds = ("words", "boxes", "clicks")

    def require_clicks(self) -> None:
        return None

    def click(self, image: EncodedImage, objects: Sequence[Clicks]) -> list[ClickedMasks]:
        """The half of the picture in which the first point of each object is, with an IoU of 0.25."""
        self.asked.append([one.text() for one in objects])
        left, right = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[-1.0, 1.0]]])
        return [
            ClickedMasks(np.array([0.25], np.float32), left if one.points[0][0] < image.size[1] / 2 else right, 0.9)
            for one in objects
        ]

    def require_boxes(self) -> None:
        return None

    def predict_concept(self, image: EncodedImage, words: str | None, examples: Sequence[Any]) -> Detections:
        """The left half, with a score that tells how many boxes there are."""
        self.asked.append([words or "", *(str(len(boxes)) for _, boxes in examples)])
        count = sum(len(boxes) for _, boxes in examples)
        return self.detections(torch.tensor([[[1.0, -1.0]]]), scores=[0.5 + count / 16])

    @staticmethod
    def detections(mask_logits: torch.Tensor, *, scores: Sequence[float]) -> Detections:
        """Instances with these masks (N, h, w), best first."""
        return Detections(
            scores=np.array(scores, np.float32),
            boxes_xyxy=np.zeros((len(scores), 4), np.float32),
            mask_logits=mask_logits,
            presence=0.9,
        )

    def free(self) -> None:
        self.freed += 1

    def close(self) -> None: ...

    def _pass(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.inside.add(threading.get_ident())
        self.began.set()
        assert self.go.wait(20), "nobody let the network go on"
        if self.fail and (error := self.fail.pop(0)) is not None:
            raise error


class InferenceSystem:
    """Ports in memory, one user with credits, and makers of what works on them."""

    def __init__(self, *, rules: Rules | None = None, credits: int = 1000) -> None:
        self.tables = MemoryTables(rules=rules or Rules(), welcome_credits=credits, rates=_no_limits())
        self.store = MemoryTaskStore(self.tables)
        self.queue = MemoryTaskQueue(self.tables)
        self.accounts = MemoryAccounts(self.tables)
        self.objects = MemoryObjectStore()
        self.inference = MemoryNotifier()
        self.network = ScriptedNetwork()
        self.metrics = CountingMetrics()
        self.cpu = ThreadPoolExecutor(2)

    async def submit_tiles(self, *prompts: str, tile: Tile, content: bytes) -> Task:
        url = await self.upload(content)
        request = TaskRequest(image_url=url, prompts=prompts or ("left",), visual=visual_of_tiles(tile))
        return (await self.store.submit(USER, request)).task

    def batcher(self, **limits: int) -> Batcher:
        return Batcher(self.network, cpu=self.cpu, limits=Limits(**limits), metrics=self.metrics)

    def batcher_of(self, network: ScriptedNetwork, decoding: DecodingPool) -> Batcher:
        """A batcher that reads pictures in processes."""
        return Batcher(network, cpu=self.cpu, decoding=decoding, metrics=self.metrics)

    def pipeline(self, batcher: Batcher, **options: Any) -> Pipeline:
        parts = {"queue": self.queue, "objects": self.objects, **options}
        queue, objects = parts.pop("queue"), parts.pop("objects")
        return Pipeline(queue, objects, lambda: batcher, cpu=self.cpu, metrics=self.metrics, **parts)

    def engine(self, **options: Any) -> Engine:
        given = {"worker": WorkerLimits(poll_s=0.02), "retry_after_s": 0.01, "cpu_threads": 2} | options
        parts = {
            name: given.pop(name) for name in ("queue", "objects", "load", "decoding", "wait_for_work") if name in given
        }
        defaults = {"queue": self.queue, "objects": self.objects, "load": lambda: self.network}
        return Engine(**(defaults | parts), options=EngineOptions(**given), metrics=self.metrics)

    async def upload(self, content: bytes, content_type: str = "image/png") -> str:
        key = new_image_key(USER.user_id, content_type)
        await self.objects.put(key, content)
        image = NewImage(object_key=key, content_type=content_type, size_bytes=len(content), width=1, height=1)
        return (await self.store.register_image(USER, image)).image_url

    async def submit(self, *prompts: str, content: bytes | None = None, image_url: str | None = None) -> Task:
        url = image_url or await self.upload(content if content is not None else png())
        return (await self.store.submit(USER, TaskRequest(image_url=url, prompts=prompts or ("left",)))).task

    async def submit_clicks(self, *objects: Clicks, content: bytes | None = None) -> Task:
        url = await self.upload(content if content is not None else png())
        request = TaskRequest(image_url=url, prompts=click_texts(objects), visual=visual_of_clicks(objects))
        return (await self.store.submit(USER, request)).task

    async def credits(self) -> int:
        account = await self.store.account(USER)
        assert account.credits == sum(entry.delta for entry in await self.accounts.ledger(USER.user_id))
        return account.credits

    async def result_keys(self) -> set[str]:
        return {info.key async for info in self.objects.list(f"users/{USER.user_id}/results/")}


def _no_limits():
    from s3seg.tasks.limits import Action

    return {tier: dict.fromkeys(Action, 10**9) for tier in Tier}
