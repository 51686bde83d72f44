"""The main program of a network's process: load the predictor, then do what the service asks until it closes the pipe.

Three threads: one reads requests ahead, one computes, one waits for results to arrive from the device and writes them.
The thread that computes goes from one request to the next without waiting for either of the others.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
import threading
import time
from queue import SimpleQueue
from typing import IO, Any

from s3seg.errors import InferenceError, S3segError
from s3seg.inference.accelerator.messages import EndOfStreamError, Messages
from s3seg.inference.accelerator.protocol import Loaded, Reply, Request
from s3seg.sam3.model import ImageFeatures

_STATUS_S = 1.0  # how old a device's status may be


class Kept:
    """The encoded images on the device, by number."""

    def __init__(self) -> None:
        self._images: dict[int, ImageFeatures] = {}
        self._numbers = itertools.count()

    def name(self, value: Any) -> tuple[int, int] | None:
        """Keep a value if it is an encoded image, and return its number and the memory that it takes in bytes."""
        if not isinstance(value, ImageFeatures):
            return None
        number = next(self._numbers)
        self._images[number] = value
        return number, value.nbytes

    def find(self, number: int) -> ImageFeatures:
        """Return an encoded image."""
        return self._images[number]

    def drop(self, numbers: tuple[int, ...]) -> None:
        """Forget encoded images."""
        for number in numbers:
            self._images.pop(number, None)


def main() -> None:
    """Serve requests from standard input on standard output; the first message is the function that loads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the service ends its children
    threading.excepthook = _end_process
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(2, 1)  # nothing that a library prints may get between the replies
    kept = Kept()
    messages = Messages(name=kept.name, find=kept.find)
    try:
        predictor = messages.read(requests)()
    except S3segError as err:
        messages.write(replies, err)
        return
    messages.write(
        replies,
        Loaded(
            device=str(predictor.device),
            dtype=str(predictor.dtype).removeprefix("torch."),
            image_size=predictor.image_size,
            parameters=predictor.parameters,
            weights_bytes=predictor.weights_bytes,
            tokenizer=predictor.tokenizer,
            has_clicks=predictor.has_clicks,
        ),
    )
    _serve(predictor, kept, messages, requests, replies)


def _serve(predictor: Any, kept: Kept, messages: Messages, requests: IO[bytes], replies: IO[bytes]) -> None:
    arrived: SimpleQueue[Request] = SimpleQueue()
    done: SimpleQueue[tuple[Request, Any]] = SimpleQueue()
    threading.Thread(target=_read_ahead, args=(messages, requests, arrived), daemon=True).start()
    threading.Thread(target=_write, args=(predictor, messages, replies, done), daemon=True).start()
    while True:
        request = arrived.get()
        try:
            outcome = getattr(predictor, request.method)(*request.arguments, **request.options)
        except Exception as err:
            outcome = err
        kept.drop(request.unneeded)
        done.put((request, outcome))
        del request, outcome  # while this waits for the next request, it must not keep images on the device


def _read_ahead(messages: Messages, requests: IO[bytes], arrived: SimpleQueue[Request]) -> None:
    while True:
        try:
            arrived.put(messages.read(requests))
        except EndOfStreamError:  # the service has ended, or wants this process to
            os._exit(0)


def _write(predictor: Any, messages: Messages, replies: IO[bytes], done: SimpleQueue[tuple[Request, Any]]) -> None:
    asked_at, status = -_STATUS_S, None
    while True:
        request, outcome = done.get()
        try:
            if isinstance(outcome, list):
                outcome = [one.complete() if hasattr(one, "complete") else one for one in outcome]
            if time.monotonic() - asked_at >= _STATUS_S:
                asked_at, status = time.monotonic(), predictor.device_status()
        except Exception as err:
            outcome = err
        error = _sendable(outcome) if isinstance(outcome, Exception) else None
        try:
            messages.write(replies, Reply(request.number, None if error else outcome, error, status))
        except OSError:
            os._exit(0)
        del request, outcome


def _end_process(failed: threading.ExceptHookArgs) -> None:
    """End the process: without one of its threads it would never answer again, and callers would wait for ever."""
    threading.__excepthook__(failed)  # writes the traceback
    sys.stderr.flush()
    os._exit(1)


def _sendable(err: Exception) -> S3segError:
    if isinstance(err, S3segError):
        try:
            return pickle.loads(pickle.dumps(err))  # noqa: S301 (what we made ourselves)
        except Exception:
            return InferenceError(str(err))
    return InferenceError(f"{type(err).__name__} in the network's process: {err}")


if __name__ == "__main__":
    sys.exit(main())
