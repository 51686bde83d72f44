"""Downloading the pictures of tasks from one Label Studio, with its key."""

from __future__ import annotations

import base64
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import SecretStr

from s3seg.errors import ConfigurationError, FileTooLargeError, InvalidRequestError, UnavailableError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

_TIMEOUT_S = 20.0
_REFUSED = (
    "Label Studio does not accept S3SEG_LABEL_STUDIO_API_KEY; make a new access token on its account page, and restart "
    "the service with it"
)


class LabelStudioFiles:
    """Reads pictures from one Label Studio, and from data: URLs.

    Args:
        url: Its address.
        key: An access token of one of its users: a personal access token, which is exchanged for short-lived ones, or a
            legacy token.
        transport: For tests.
    """

    def __init__(self, url: str, key: SecretStr, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._base = url.rstrip("/") + "/"
        self._host = urlsplit(url).netloc.rpartition("@")[2]  # without credentials, for messages
        self._key = key
        self._access: str | None = None
        self._transport = transport

    async def read(self, address: object, *, key: str) -> bytes:
        """Read a picture.

        Args:
            address: A path on the Label Studio, a URL on it, or a data: URL.
            key: Name of the field that has it, for messages.

        Raises:
            InvalidRequestError: The address is not of this Label Studio, or there is no such picture.
            FileTooLargeError: It is larger than 10 MB.
            UnavailableError: The Label Studio does not answer.
            ConfigurationError: It does not accept the key.
        """
        if not isinstance(address, str) or not address:
            raise InvalidRequestError(
                f"data.{key:.60}: there is no address of a picture, got {address!r:.60}; the value of <Image> in the "
                "labeling interface names the field that has it"
            )
        if address[:5].lower() == "data:":
            return _decoded(address, key)
        try:
            url = urljoin(self._base, address)
            ours = urlsplit(url)[:2] == urlsplit(self._base)[:2]
        except ValueError:
            ours, url = False, ""
        if not ours:
            raise InvalidRequestError(
                f"data.{key:.60}: {address:.100} is not on {self._host}, the only host that this service downloads "
                "from; import the picture into Label Studio as a file, or correct S3SEG_LABEL_STUDIO_URL"
            )
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, transport=self._transport) as client:
            try:
                return await self._download(client, url, key)
            except httpx.InvalidURL as err:
                raise InvalidRequestError(f"data.{key:.60}: {address!r:.100} is not a valid address: {err}") from err
            except httpx.HTTPError as err:
                raise UnavailableError(
                    f"Label Studio does not answer at {self._host} ({type(err).__name__}); check that it runs there",
                    retry_after=5,
                ) from err

    async def _download(self, client: httpx.AsyncClient, url: str, key: str) -> bytes:
        for attempt in ("first", "with a new access token"):
            headers = {"Authorization": await self._authorization(client)}
            async with client.stream("GET", url, headers=headers) as response:
                if response.status_code == 401 and self._access is not None and attempt == "first":
                    self._access = None
                    continue
                if response.status_code in (401, 403):
                    raise ConfigurationError(_REFUSED)
                if response.status_code != 200:
                    raise InvalidRequestError(
                        f"data.{key:.60}: Label Studio answered {response.status_code} for {urlsplit(url).path:.100}"
                    )
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_UPLOAD_BYTES:
                        raise FileTooLargeError(
                            f"data.{key:.60}: the picture is larger than 10 MB; import a smaller one"
                        )
                return bytes(content)
        raise ConfigurationError(_REFUSED)

    async def _authorization(self, client: httpx.AsyncClient) -> str:
        secret = self._key.get_secret_value()
        if secret.count(".") != 2:  # a legacy token
            return f"Token {secret}"
        if self._access is None:
            answer = await client.post(urljoin(self._base, "api/token/refresh"), json={"refresh": secret})
            if answer.status_code != 200:
                raise ConfigurationError(_REFUSED)
            try:
                self._access = str(answer.json()["access"])
            except (ValueError, KeyError, TypeError):
                raise ConfigurationError(
                    f"{self._host} does not answer like a Label Studio; correct S3SEG_LABEL_STUDIO_URL"
                ) from None
        return f"Bearer {self._access}"


def _decoded(url: str, key: str) -> bytes:
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise InvalidRequestError(f"data.{key:.60}: it is a data: URL without base64; use data:image/png;base64,...")
    try:
        return base64.b64decode(data)
    except ValueError:  # of binascii, or for letters that are not ASCII
        raise InvalidRequestError(
            f"data.{key:.60}: what follows the comma of the data: URL is not valid base64"
        ) from None
