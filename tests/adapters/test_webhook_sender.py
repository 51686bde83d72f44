"""Webhooks are signed, and sent to public addresses only."""

from __future__ import annotations

import json

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from s3seg.adapters.webhook_sender import WebhookSender
from s3seg.errors import InvalidRequestError, UnavailableError
from s3seg.tasks.webhook_address import check_url, is_public
from s3seg.tasks.webhook_payload import new_delivery_id, new_secret
from s3seg.tasks.webhooks import DueDelivery

pytestmark = pytest.mark.anyio
PUBLIC = "93.184.215.14"


def delivery(url: str = "https://me.example/hook?a=b") -> DueDelivery:
    return DueDelivery(
        delivery_id=new_delivery_id(), url=url, secret=new_secret(), payload='{"type": "task.done"}', attempts=1
    )


class Receiver:
    """Answers requests, and records them."""

    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, headers={"Location": "http://169.254.169.254/"})

    def sender(self, *addresses: str, **options: bool) -> WebhookSender:
        async def resolve(host: str, port: int) -> list[str]:
            return list(addresses)

        return WebhookSender(resolve=resolve, transport=httpx.MockTransport(self), **options)


async def test_a_receiver_verifies_it_with_the_schemes_own_library() -> None:
    receiver, sent = Receiver(), delivery()
    await receiver.sender(PUBLIC).send(sent)
    (request,) = receiver.requests
    assert Verifier(sent.secret).verify(request.content, dict(request.headers)) == json.loads(sent.payload)
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(new_secret()).verify(request.content, dict(request.headers))
    assert request.headers["webhook-id"] == sent.delivery_id
    assert sent.secret not in str(request.headers)


async def test_the_connection_is_made_to_the_address_that_was_checked_for_the_name() -> None:
    receiver = Receiver()
    await receiver.sender(PUBLIC).send(delivery())
    (request,) = receiver.requests
    assert (request.url.host, request.url.path, request.url.query) == (PUBLIC, "/hook", b"a=b")
    assert request.headers["host"] == "me.example"
    assert request.extensions["sni_hostname"] == "me.example"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
        "fec0::1", "64:ff9b:1::a00:1", "::10.0.0.1", "::ffff:0:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
async def test_nothing_is_sent_to_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)
    receiver = Receiver()
    with pytest.raises(UnavailableError, match="not public"):
        await receiver.sender(PUBLIC, address).send(delivery())  # one of several is enough
    for url in (f"https://{address}/", f"https://[{address}]/"):
        with pytest.raises(UnavailableError):
            await receiver.sender(address).send(delivery(url))
    assert receiver.requests == []


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
async def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)
    receiver = Receiver()
    await receiver.sender(address).send(delivery())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("text", ["", "localhost", "me.example", "1", "0x7f000001", "127.1", "2130706433"])
def test_a_name_is_no_public_address(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("status", [199, 301, 302, 307, 400, 410, 500, 503])
async def test_any_other_answer_is_no_receipt_and_redirects_are_not_followed(status: int) -> None:
    receiver = Receiver(status)
    with pytest.raises(UnavailableError, match=f"status {status}"):
        await receiver.sender(PUBLIC).send(delivery())
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://me.example/", "ftp://me.example/", "https://", "https:///x", "https://user:pass@me.example/",
        "https://me.example:22/", "https://me.example/#x", "https://me.example/\n", "https://mé.example/",
        "//me.example", "https://me.example:99999/", "https://[::1", f"https://me.example/{'x' * 2000}",
    ],
)  # fmt: skip
async def test_an_address_that_may_not_be_called_is_not_called(url: str) -> None:
    receiver = Receiver()
    with pytest.raises(UnavailableError):
        await receiver.sender(PUBLIC).send(delivery(url))
    assert receiver.requests == []


async def test_a_host_that_does_not_exist_is_told_as_no_answer() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(UnavailableError, match="no answer"):
        await WebhookSender(resolve=resolve).send(delivery())


async def test_trusted_users_may_name_any_address() -> None:
    receiver = Receiver()
    await receiver.sender("127.0.0.1", allow_private=True).send(delivery("http://box.internal:9000/hook"))
    assert receiver.requests[0].headers["host"] == "box.internal:9000"


@pytest.mark.parametrize("host", ["a..example", ".example", "a" * 64 + ".example"])
def test_an_address_without_a_host_name_is_refused_at_once(host: str) -> None:
    with pytest.raises(InvalidRequestError, match="not a host name"):
        check_url(f"https://{host}/")


@pytest.mark.parametrize(
    "host", ["me.example", "me.example.", "a" * 63 + ".example", "93.184.215.14", "[2606:4700::1111]"]
)
def test_host_names_and_public_addresses_are_accepted(host: str) -> None:
    assert check_url(f"https://{host}/") == f"https://{host}/"


@pytest.mark.parametrize("host", ["xn--a", "a" * 63 + ".example"])
async def test_a_host_name_that_cannot_be_looked_up_is_told_to_its_owner(host: str) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        raise UnicodeError("label too long")  # as the system's resolver does

    with pytest.raises(UnavailableError, match="not a host name"):
        await WebhookSender(resolve=resolve).send(delivery(f"https://{host}/"))
