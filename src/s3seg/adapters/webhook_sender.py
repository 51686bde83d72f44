"""Sends webhooks over HTTPS, and to public addresses only.

The address of a webhook is a user's, and the sender stands in the operator's network. So the name is resolved, every
address that it has must be public, and the connection is made to one of these addresses, for the name: what the name
resolves to a moment later does not count. Redirects are not followed, and answers are not read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import httpx
from standardwebhooks.webhooks import Webhook as Signer

from s3seg.errors import InvalidRequestError, UnavailableError
from s3seg.tasks.webhook_address import check_url, is_public
from s3seg.tasks.webhooks import DueDelivery

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host name; raises OSError if it has none."""

_TIMEOUT_S = 10.0
_RESOLVING = ThreadPoolExecutor(4, thread_name_prefix="s3seg-resolve")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host name, from the system's resolver, on threads of its own.

    A name server that does not answer holds a thread for many seconds; on the threads of the event loop, that would
    stop everything else that uses them.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVING, look_up)
    return [str(address[0]) for *_, address in found]


class WebhookSender:
    """Sends deliveries.

    Args:
        allow_private: Send to any address, also in plain HTTP: only where all users are trusted.
        resolve: Resolves host names.
        transport: Makes the connections, instead of httpx's own.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._http = httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def send(self, delivery: DueDelivery) -> None:
        """Send a delivery, and return if it was received: an answer with a status of 200 to 299.

        Raises:
            UnavailableError: It was not; the message says why, to the webhook's owner.
        """
        try:
            async with asyncio.timeout(3 * _TIMEOUT_S):
                status = await self._post(delivery)
        except InvalidRequestError as err:
            raise UnavailableError(str(err)) from None
        except (UnicodeError, httpx.InvalidURL):  # of the encodings of host names, here and in the system's resolver
            raise UnavailableError("the host of the address is not a host name") from None
        except (httpx.HTTPError, OSError, TimeoutError) as err:
            raise UnavailableError(f"no answer: {type(err).__name__}") from None
        if not 200 <= status < 300:
            raise UnavailableError(f"the answer had the status {status}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, delivery: DueDelivery) -> int:
        url = httpx.URL(check_url(delivery.url, allow_private=self._allow_private))
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await self._resolve(url.host, port)
        if not addresses:
            raise UnavailableError("the host has no address")
        if not self._allow_private and not all(map(is_public, addresses)):
            raise UnavailableError("the host has an address that is not public")
        now = datetime.now(UTC)
        request = self._http.build_request(
            "POST",
            url.copy_with(host=addresses[0]),  # the one that was checked, whatever the name resolves to by now
            content=delivery.payload,
            headers={
                "Host": url.netloc.decode("ascii"),
                "Content-Type": "application/json",
                "User-Agent": "s3seg",
                "webhook-id": delivery.delivery_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Signer(delivery.secret).sign(delivery.delivery_id, now, delivery.payload),
            },
            extensions={"sni_hostname": url.host},  # whose certificate is required
        )
        answer = await self._http.send(request, stream=True)
        await answer.aclose()  # its body is not read
        return answer.status_code
