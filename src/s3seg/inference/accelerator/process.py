"""`PredictorProcess`: a predictor that runs in a process of its own, on one device."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from s3seg.errors import CheckpointError, InferenceError, S3segError
from s3seg.inference.accelerator.messages import EndOfStreamError, Messages
from s3seg.inference.accelerator.protocol import Loaded, Reply, Request
from s3seg.sam3.resize import resize

if TYPE_CHECKING:
    import numpy as np

    from s3seg.sam3.click_predictor import ClickQuery
    from s3seg.sam3.device import DeviceStatus
    from s3seg.sam3.predictor import BoxPrompt, Detections, Predictor, Query
    from s3seg.sam3.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_SECRET = ("S3SEG_", "API_SECRET_KEY")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class RemoteImage:
    """An encoded image on the device of a process.

    Attributes:
        number: Its number in that process.
        nbytes: Memory that it takes there.
        process: Counts the starts of the process; the image is gone once it has been restarted.
    """

    number: int
    nbytes: int
    process: int


class PredictorProcess:
    """A `s3seg.sam3.predictor.Predictor` in a child process. Safe to share between threads; calls wait for each other.

    If the process dies, calls in progress raise InferenceError, it is started again, and later calls wait for that.

    Args:
        load: Makes the predictor, in the process. It is pickled: a function of a module, or a `functools.partial`.
        device: What messages and metrics call the device.

    Raises:
        S3segError: What ``load`` raised.
        CheckpointError: The process ended while it loaded.
    """

    def __init__(self, load: Callable[[], Predictor], *, device: str) -> None:
        self.name = device
        self.restarts = 0
        self._load = load
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future[Any]] = {}
        self._unneeded: list[int] = []
        self._messages = Messages(name=self._number_of, find=self._image)
        self._status: DeviceStatus | None = None
        self._failure: str | None = None
        self._closed = False
        self._running = threading.Event()
        self._processes: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end, self._processes)  # also when this process ends
        self._loaded = self._start()

    # ---- what a predictor offers ----

    @property
    def device(self) -> str:
        """The device, as the predictor names it."""
        return self._loaded.device

    @property
    def dtype(self) -> str:
        """The precision of the weights."""
        return self._loaded.dtype

    @property
    def image_size(self) -> int:
        """The side of the network's square input, in pixels."""
        return self._loaded.image_size

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return self._loaded.parameters

    @property
    def weights_bytes(self) -> int:
        """The size of the weights in the device's memory."""
        return self._loaded.weights_bytes

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint, in this process."""
        return self._loaded.tokenizer

    def resize(self, image: np.ndarray) -> Any:
        """Resize an image to the network's input, in this process."""
        return resize(image, self.image_size)

    def encode_resized(self, resized: Sequence[Any]) -> list[RemoteImage]:
        """Encode images that `resize` returned; they stay on the device."""
        return self.call("encode_resized", list(resized))

    def predict_pairs(
        self, pairs: Sequence[tuple[RemoteImage, Query]], *, threshold: float, max_instances: int | None = None
    ) -> list[Detections]:
        """Predict the instances of each query in its own encoded image; see `Predictor.predict_pairs`."""
        return self.call("predict_pairs", list(pairs), threshold=threshold, max_instances=max_instances)

    @property
    def has_clicks(self) -> bool:
        """Whether the checkpoint has a click head."""
        return self._loaded.has_clicks

    def encoded_bytes(self, image: RemoteImage) -> int:
        """Return the memory that an encoded image takes on the device; see `Predictor.encoded_bytes`."""
        return image.nbytes

    def click(self, image: RemoteImage, queries: Sequence[ClickQuery], *, alternatives: bool = False) -> Any:
        """Predict the masks of objects in an encoded image; see `Predictor.click`."""
        return self.call("click", image, list(queries), alternatives=alternatives)

    def encode_examples(self, image: RemoteImage, boxes: Sequence[BoxPrompt]) -> np.ndarray:
        """Encode what boxes show in an encoded image; see `Predictor.encode_examples`."""
        return self.call("encode_examples", image, list(boxes))

    def device_status(self) -> DeviceStatus | None:
        """Return the status of the device with the last reply; None before the first. Never waits."""
        return self._status

    def free_cached_memory(self) -> None:
        """Release device memory that is only held in reserve."""
        self.call("free_cached_memory")

    @property
    def problem(self) -> str | None:
        """Why it cannot compute at the moment; None if it can."""
        if self._failure is not None:
            return self._failure
        return None if self._running.is_set() else f"the network's process on {self.name} is being restarted"

    # ---- the process ----

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the predictor in the process, and wait for the result.

        Raises:
            S3segError: The method raised it.
            InferenceError: The process died, or an encoded image among the arguments died with an earlier one.
        """
        future: Future[Any] = Future()
        self._running.wait()
        with self._lock:
            if self._failure is not None or self._closed:
                raise InferenceError(self._failure or "the service is stopping")
            number = next(self._numbers)
            count = len(self._unneeded)  # a finalizer may add to them meanwhile
            unneeded = tuple(self._unneeded[:count])
            del self._unneeded[:count]
            self._pending[number] = future
            try:
                self._messages.write(
                    cast("IO[bytes]", self._process.stdin), Request(number, method, arguments, options, unneeded)
                )
            except (OSError, ValueError):  # a pipe that is broken, or closed already
                self._pending.pop(number, None)
                raise InferenceError(f"the network's process on {self.name} has ended; try again") from None
            except BaseException:
                self._pending.pop(number, None)
                self._unneeded += unneeded  # nothing was sent
                raise
        return future.result()

    def close(self) -> None:
        """End the process. Calls in progress raise InferenceError."""
        with self._lock:
            self._closed = True
            self._running.set()
        _end(self._processes)

    def _start(self) -> Loaded:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET)}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "s3seg.inference.accelerator.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._process = process
        self._processes[:] = [process]
        try:
            self._messages.write(cast("IO[bytes]", process.stdin), self._load)
            loaded = self._messages.read(cast("IO[bytes]", process.stdout))
        except (EndOfStreamError, OSError):
            code = process.wait()
            _end([process])
            raise CheckpointError(
                f"the network's process on {self.name} ended while it loaded, with exit code {code}; the log says why"
            ) from None
        if isinstance(loaded, S3segError):
            _end([process])
            raise loaded
        self._running.set()
        threading.Thread(target=self._read, args=(process,), name="s3seg-replies", daemon=True).start()
        return loaded

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                reply: Reply = self._messages.read(cast("IO[bytes]", process.stdout))
            except (EndOfStreamError, OSError, ValueError):
                break
            self._status = reply.status
            future = self._pending.pop(reply.number)
            if reply.error is not None:
                future.set_exception(reply.error)
            else:
                future.set_result(reply.result)
        self._running.clear()
        code = process.wait()
        why = f"the network's process on {self.name} ended with exit code {code}"
        with self._lock:
            pending, self._pending = self._pending, {}
            self._unneeded.clear()
            self.restarts += 1
            _end([process])  # closes its pipes
        for future in pending.values():
            future.set_exception(InferenceError(f"{why}; try again"))
        if self._closed:
            self._running.set()  # so that nobody waits any longer
            return
        _log.error("%s; starting another", why, extra={"device": self.name})
        self._restart()

    def _restart(self) -> None:
        try:
            self._start()
        except S3segError as err:
            self._failure = f"the network's process on {self.name} cannot be restarted: {err}"
            _log.error("%s", self._failure, extra={"device": self.name})
            self._running.set()  # so that nobody waits any longer
        else:
            _log.info("the network's process has been restarted", extra={"device": self.name})
            if self._closed:
                _end(self._processes)

    def _image(self, name: tuple[int, int]) -> RemoteImage:
        image = RemoteImage(*name, process=self.restarts)
        weakref.finalize(image, self._forget, image.number, image.process).atexit = False
        return image

    def _number_of(self, value: Any) -> int | None:
        if not isinstance(value, RemoteImage):
            return None
        if value.process != self.restarts:
            raise InferenceError(f"the network's process on {self.name} was restarted; encode the picture again")
        return value.number

    def _forget(self, number: int, process: int) -> None:
        if process == self.restarts:
            self._unneeded.append(number)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
