"""Which addresses webhooks may have: public ones, since the sender stands in the operator's network."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from s3seg.errors import InvalidRequestError
from s3seg.tasks.webhooks import MAX_URL_CHARS

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
_LEADING_INSIDE = (
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of a site (RFC 8215)
    ipaddress.ip_network("::/96"),  # compatible with IPv4 (RFC 4291)
    ipaddress.ip_network("::ffff:0:0:0/96"),  # SIIT (RFC 2765)
)
_MAX_LABEL_CHARS = 63  # between two dots of a host name (RFC 1035, 2.3.4)


def check_url(url: str, *, allow_private: bool = False) -> str:
    """Return the address of a webhook as it is.

    Raises:
        InvalidRequestError: It is not https, has a user, a fragment or no host, is too long, or has an IP address that
            is not public.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        shown = url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        host, port, shown, parts = "", None, False, urlsplit("")
    if not shown or len(url) > MAX_URL_CHARS or not host or parts.fragment or "@" in parts.netloc:
        raise InvalidRequestError(f"url: not of the form https://host/path, of at most {MAX_URL_CHARS} characters")
    if ":" not in host and not all(1 <= len(label) <= _MAX_LABEL_CHARS for label in host.removesuffix(".").split(".")):
        raise InvalidRequestError("url: not a host name")
    if allow_private:
        return url
    if parts.scheme != "https":
        raise InvalidRequestError("url: must begin with https://")
    if port not in (None, 443, 8443):
        raise InvalidRequestError("url: the port must be 443 or 8443")
    if _address(host) is not None and not is_public(host):
        raise InvalidRequestError("url: not a public address")
    return url


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the internet; anything else, such as a name, is not."""
    found = _address(address)
    return found is not None and _is_global(found)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return _is_global(inner)
        if address in _NAT64:
            return _is_global(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.is_site_local or any(address in network for network in _LEADING_INSIDE):
            return False
    return address.is_global and not address.is_multicast
