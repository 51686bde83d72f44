"""Download pictures from http(s) URLs, up to a limit of bytes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from s3seg.errors import ImageDecodeError

_MAX_REDIRECTS = 5
_HEADERS = {"User-Agent": "s3seg", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


def is_url(source: Any) -> bool:
    """Return whether a source is text that starts like an http(s) URL."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def without_credentials(url: str) -> str:
    """Return the URL without ``user:password@`` and its fragment, for messages and results."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def download(url: str, name: str, *, max_bytes: int, timeout: float) -> bytes:
    """Download a URL, following at most five redirects.

    The Content-Type that the server sends is ignored.

    Args:
        url: An http(s) URL.
        name: Name of the picture in messages.
        max_bytes: Stop with an error once more bytes have arrived.
        timeout: Seconds to wait for the connection, and for each part of the response.

    Raises:
        ImageDecodeError: The server cannot be reached or does not answer with success, or the response is too
            long or cut off.
    """
    import httpx  # takes 0.3 s, which local files need not wait for

    content = bytearray()
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=_MAX_REDIRECTS, timeout=timeout) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            if not response.is_success:
                raise ImageDecodeError(
                    f"{name}: the server answered {response.status_code} {response.reason_phrase}".rstrip()
                )
            announced = response.headers.get("Content-Length", "")
            _check_length(int(announced) if announced.isdecimal() else 0, name, max_bytes)
            for chunk in response.iter_bytes():
                content += chunk
                _check_length(len(content), name, max_bytes)
    except httpx.TimeoutException as err:
        raise ImageDecodeError(f"{name}: the server did not answer within {timeout:g} seconds") from err
    except httpx.TooManyRedirects as err:
        raise ImageDecodeError(f"{name}: more than {_MAX_REDIRECTS} redirects") from err
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        raise ImageDecodeError(f"{name}: the download failed: {err or type(err).__name__}") from err
    return bytes(content)


def _check_length(length: int, name: str, max_bytes: int) -> None:
    if length > max_bytes:
        raise ImageDecodeError(f"{name}: more than the {max_bytes} bytes that are downloaded (max_bytes)")
