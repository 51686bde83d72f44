"""A request on an HTTP/1.1 connection and its answer, whose body can be refused while the application reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from s3seg.errors import S3segError

if TYPE_CHECKING:
    from s3seg.web.http_protocol import LimitedProtocol


class LimitedCycle(RequestResponseCycle):
    """A request and its answer. Unlike uvicorn's, it reads from the connection only while its body is incomplete."""

    def __init__(self, protocol: LimitedProtocol, *, keep_alive: bool) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=_Transport(protocol),  # type: ignore[arg-type]
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.refusal: S3segError | None = None

    async def receive(self) -> Any:
        """Return the next part of the body, or that the client is gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete and self.refusal is None:
            if self.more_body:
                self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.refusal is not None:
            if self.response_started:
                return {"type": "http.disconnect"}
            raise self.refusal
        message = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.body = bytearray()
        return message


class _Transport:
    """What a `LimitedCycle` writes to: its connection, which counts what is sent and closes gently."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.close()
