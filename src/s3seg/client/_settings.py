"""Check the settings of a client once, when it is created. No message repeats a value, which may be a secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from s3seg.errors import ConfigurationError


def checked_url(url: str) -> str:
    """Return the URL of a service without white space around it, and without a slash or ``/api/v1`` at its end.

    Raises:
        ConfigurationError: It is missing or not a plain http(s) URL.
    """
    url = url.strip()
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        what = "is not set" if not url else "must start with http:// or https://"
        raise ConfigurationError(f"the service's URL {what}; pass url=..., or set S3SEG_URL")
    if not _is_plain(url):
        raise ConfigurationError(
            "the service's URL is malformed; it must look like https://host or http://host:port, without spaces"
        )
    if "@" in urlsplit(url).netloc:
        raise ConfigurationError("the service's URL must not contain a user name or password; pass a token instead")
    if "?" in url or "#" in url:
        raise ConfigurationError("the service's URL must not contain ? or #")
    return url.rstrip("/").removesuffix("/api/v1")


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and re.search(r"[\s\x00-\x1f\x7f]", url) is None
    except ValueError:
        return False


def checked_token(token: str) -> str:
    """Return an access token without white space around it.

    Raises:
        ConfigurationError: It is missing, or has characters that no token has.
    """
    token = token.strip()
    if not token:
        raise ConfigurationError(
            "there is no access token; pass token=..., set S3SEG_TOKEN (`s3seg token` prints one), or sign in with "
            "`s3seg login` and use Client.signed_in"
        )
    if re.match(r"bearer\s", token, re.IGNORECASE):
        raise ConfigurationError('the access token begins with "Bearer"; pass the token alone')
    # visible ASCII characters but quotes: these are around tokens that were copied from JSON or a shell script
    if re.fullmatch(r"[!#-&(-~]+", token) is None:
        raise ConfigurationError(
            "the access token contains a character that no token has, such as a space, a line break or a quotation "
            "mark; copy it again (its value is not shown here, because it is secret)"
        )
    return token
