"""Archives and deletion of accounts by the client, against the real edge through connections that break."""

import json
import struct
import tarfile

import httpx
import pytest

from s3seg.client import AsyncClient, Client, RetryPolicy
from s3seg.errors import AuthInvalidError, InvalidRequestError, UnavailableError
from tests.helpers.archives import content_of
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio
FAST = RetryPolicy(retries=0)


class Breaking(httpx.AsyncBaseTransport):
    """Passes on so many bytes of each archive; then the connection is lost."""

    def __init__(self, app, allowed):
        self._inner = httpx.ASGITransport(app)
        self.allowed = list(allowed)
        self.asked = []

    async def handle_async_request(self, request):
        response = await self._inner.handle_async_request(request)
        if not request.url.path.endswith("/me/export"):
            return response
        self.asked.append(request.url.params.get("after"))
        data = await response.aread()
        if not self.allowed:
            return httpx.Response(200, headers=response.headers, content=data)
        limit = self.allowed.pop(0)

        async def part():
            yield data[:limit]
            if limit < len(data):
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

        return httpx.Response(200, stream=_Stream(part()))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, parts):
        self._parts = parts

    async def __aiter__(self):
        async for part in self._parts:
            yield part


async def filled(service, ann):
    for number in range(3):
        response = await ann.upload(encoded())
        body = {"image_url": response.json()["data"]["image_url"], "text_prompt": f"p{number}"}
        task_id = (await ann("POST", "/api/v1/segment", json=body)).json()["data"]["task_id"]
        await service.finish(task_id)


def described(path):
    with tarfile.open(path) as archive:
        return {member.name: content_of(archive, member) for member in archive if member.name != "complete.json"}


async def test_an_archive_is_saved(service, ann, tmp_path):
    await filled(service, ann)
    client = AsyncClient("http://edge.example", ann.token, http=service.http)
    path = await client.export_account(tmp_path / "all.tar")
    files = described(path)
    assert len([name for name in files if name.endswith("result.json")]) == 3
    assert encoded() in files.values()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.partial")) == []
    with pytest.raises(InvalidRequestError, match="exists already"):
        await client.export_account(path)


@pytest.mark.parametrize("cuts", [(0, 100, 9000), (8500, 4000, 5000), (9000, 512, 1, 8000)])
async def test_an_archive_is_continued_wherever_the_connection_breaks(service, ann, tmp_path, cuts):
    await filled(service, ann)
    whole = AsyncClient("http://edge.example", ann.token, http=service.http)
    expected = described(await whole.export_account(tmp_path / "whole.tar"))
    transport = Breaking(service.app, cuts)
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncClient("http://edge.example", ann.token, http=http, retry_policy=FAST)
        for _ in cuts:
            with pytest.raises(UnavailableError):
                await client.export_account(tmp_path / "cut.tar")
        path = await client.export_account(tmp_path / "cut.tar")
    found = described(path)
    assert found == expected
    assert transport.asked[0] is None
    assert transport.asked[-1] is not None


async def test_it_is_continued_by_itself_as_long_as_something_arrives(service, ann, tmp_path):
    await filled(service, ann)
    transport = Breaking(service.app, [9000, 4000, 4000])
    async with httpx.AsyncClient(transport=transport) as http:
        policy = RetryPolicy(retries=1)
        client = AsyncClient("http://edge.example", ann.token, http=http, retry_policy=policy)
        await client.export_account(tmp_path / "all.tar")
    assert len(transport.asked) == 4


@pytest.mark.parametrize("cut", [9000, -1, -1024, -1536])
async def test_an_archive_that_a_proxy_cuts_without_an_error_is_not_taken_for_a_whole_one(service, ann, tmp_path, cut):
    await filled(service, ann)
    answers = [(await ann("GET", "/api/v1/me/export")).content[:cut], b"<html>sign in to this network</html>"]

    def answer(request):
        if request.url.path.endswith("/me"):
            return httpx.Response(200, content=me.content)
        return httpx.Response(200, content=answers.pop(0))

    me = await ann("GET", "/api/v1/me")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = AsyncClient("http://edge.example", ann.token, http=http, retry_policy=FAST)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="ended before the archive did"):
                await client.export_account(tmp_path / "all.tar")
    assert not (tmp_path / "all.tar").exists()
    client = AsyncClient("http://edge.example", ann.token, http=service.http)
    expected = described(await client.export_account(tmp_path / "whole.tar"))
    assert described(await client.export_account(tmp_path / "all.tar")) == expected


async def test_the_beginning_of_anothers_archive_is_not_continued(service, ann, bob, tmp_path):
    await filled(service, ann)
    async with httpx.AsyncClient(transport=Breaking(service.app, [9000])) as http:
        with pytest.raises(UnavailableError):
            await AsyncClient("http://edge.example", ann.token, http=http, retry_policy=FAST).export_account(
                tmp_path / "all.tar"
            )
        with pytest.raises(InvalidRequestError, match="another account"):
            await AsyncClient("http://edge.example", bob.token, http=http).export_account(tmp_path / "all.tar")


@pytest.mark.parametrize(
    "damage",
    [
        lambda item: item.replace(b'"cursor"', b'"cursed"'),  # in a file that something else has made
        lambda item: item[:124] + struct.pack(">Bxxxq", 0xFF, -512) + item[136:],  # a size below 0
        lambda item: item[:124] + struct.pack(">Bxxxq", 0x80, 1 << 60) + item[136:],
    ],
)
async def test_a_damaged_beginning_is_cut_or_begun_again(service, ann, tmp_path, damage):
    await filled(service, ann)
    client = AsyncClient("http://edge.example", ann.token, http=service.http)
    expected = described(await client.export_account(tmp_path / "whole.tar"))
    whole = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        third = [one.offset for one in archive if one.name.endswith("/image.json")][2]
    block = whole[third : third + 1024]
    damaged = checked(damage(block))
    (tmp_path / "cut.tar.partial").write_bytes(whole[:third] + damaged + whole[third + 1024 : -2048])
    assert described(await client.export_account(tmp_path / "cut.tar")) == expected


def checked(item):
    """The item with the checksum of its header."""
    header = item[:148] + b" " * 8 + item[156:512]
    return item[:148] + b"%06o\0 " % sum(header) + item[156:]


async def test_the_synchronous_client_saves_it_too(service, ann, tmp_path):
    await filled(service, ann)
    data = (await ann("GET", "/api/v1/me/export")).content
    http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=data)))
    path = Client("http://edge.example", ann.token, http=http).export_account(tmp_path / "all.tar")
    assert path.read_bytes() == data


async def test_an_account_is_deleted_by_its_id(service, ann):
    client = AsyncClient("http://edge.example", ann.token, http=service.http)
    user_id = (await client.me()).user_id
    with pytest.raises(InvalidRequestError):
        await client.delete_account("yes")
    deleted = await client.delete_account(user_id)
    assert (deleted.id, deleted.deleted) == (user_id, True)
    assert await client.delete_account(user_id) == deleted
    with pytest.raises(AuthInvalidError, match="deleted"):
        await client.me()


async def test_times_are_passed_on(service, ann):
    client = AsyncClient("http://edge.example", ann.token, http=service.http)
    image = await client.upload(encoded(), expires_in_s=3600)
    assert image.expires_at is not None
    task = await client.submit(image.image_url, "cat", expires_in_s=600)
    ended = await client.cancel(task.task_id)
    assert ended.expires_at is not None
    assert (ended.expires_at - ended.updated_at).total_seconds() == 600
    json.dumps(ended.model_dump(mode="json"))
