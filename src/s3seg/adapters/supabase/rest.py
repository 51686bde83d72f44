"""Sends requests to the PostgREST of a Supabase project, on behalf of a user or of a service."""

from __future__ import annotations

import json
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol

import httpx
from postgrest import APIError, AsyncPostgrestClient
from pydantic import SecretStr

from s3seg.adapters.supabase.errors import lost_answer, translated
from s3seg.errors import AuthInvalidError, ConfigurationError, InvalidRequestError, UnavailableError
from s3seg.tasks.health import MismatchError

_SCHEMA_VERSION = 8  # oldest version of the schema that this code works with


class _Builder(Protocol):
    async def execute(self) -> Any: ...


class Rest:
    """The PostgREST API of one project. All calls share the connections, but no call shares its headers.

    Every call gets a PostgREST client of its own, which takes only microseconds to create. With a shared client,
    whose token is changed between calls, a user could receive the rows of another user.

    Args:
        url: URL of the project, such as ``https://<ref>.supabase.co``.
        key: The API key: the publishable (or legacy anon) key for calls on behalf of users, the secret (or legacy
            service_role) key for workers and operators.
        timeout_s: Seconds to wait for a connection, and for a response.
        transport: An httpx transport to use instead of the network.
        path: Path of PostgREST below ``url``.
    """

    def __init__(
        self,
        url: str,
        key: SecretStr,
        *,
        timeout_s: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
        path: str = "/rest/v1",
    ) -> None:
        self._base = f"{url.rstrip('/')}{path}"
        self._key = key
        self._timeout_s = timeout_s
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    def as_user(self, token: str, *, request_id: str | None = None) -> AsyncPostgrestClient:
        """Return a client for one call on behalf of the user that the token belongs to.

        Args:
            token: The user's access token.
            request_id: Id of the request that the call is made for, which is sent along.

        Raises:
            AuthInvalidError: If the token is empty.
        """
        if not token:
            raise AuthInvalidError("the database needs the caller's token, and there is none")
        known = {} if request_id is None else {"X-Request-Id": request_id}
        return self._client({"Authorization": f"Bearer {token}", **known})

    def as_key(self) -> AsyncPostgrestClient:
        """Return a client for one call that is authorised by the API key alone."""
        key = self._key.get_secret_value()
        # keys of the new format are not JWTs; the gateway replaces them with one
        return self._client({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})

    async def call(
        self, client: AsyncPostgrestClient, function: str, arguments: dict[str, Any], *, safe: bool = False
    ) -> Any:
        """Call an SQL function and return its result; see `run` for ``safe`` and the errors."""
        return await self.run(client.rpc(function, arguments), safe=safe)

    async def run(self, builder: _Builder, *, safe: bool = False) -> Any:
        """Run a query and return its rows, or the result of the function that it calls.

        Args:
            builder: The query.
            safe: Whether the query can be repeated safely. If so, it is sent once more if the response is lost.

        Raises:
            S3segError: The error that corresponds to the response; its message contains no data of the database.
        """
        return (await self._execute(builder, safe=safe)).data

    async def run_counted(self, builder: _Builder) -> tuple[list[dict[str, Any]], int]:
        """Run a query with a count, and return its rows and the number of rows on all pages together."""
        try:
            answer = await self._execute(builder, safe=True)
        except BeyondTheEndError as err:
            return [], err.total
        return answer.data, answer.count or 0

    async def info(self) -> dict[str, Any]:
        """Return the ``version`` of the schema and the ``public_base_url`` of the database."""
        return await self.call(self.as_key(), "s3seg_info", {}, safe=True)

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _execute(self, builder: _Builder, *, safe: bool) -> Any:
        for last in (not safe, True):
            try:
                return _checked(await builder.execute())
            except APIError as err:
                beyond = _beyond_the_end(err)
                if beyond is not None:
                    raise beyond from None
                raise translated(err) from None  # the original message may contain rows, which must not be logged
            except UnicodeEncodeError:
                raise InvalidRequestError("the request contains text that is not valid Unicode") from None
            except httpx.TransportError as err:
                if last or isinstance(err, httpx.TimeoutException):
                    raise lost_answer(err) from None
        raise AssertionError("unreachable")

    def _client(self, headers: dict[str, str]) -> AsyncPostgrestClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                transport=self._transport or httpx.AsyncHTTPTransport(retries=1),  # retries connecting, not requests
                timeout=self._timeout_s,
                follow_redirects=False,
                trust_env=False,
                # a cookie from the response to one user must not be sent with the request of another
                cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            )
        return AsyncPostgrestClient(
            self._base,
            headers={"apikey": self._key.get_secret_value(), **headers},
            http_client=self._http,
            retry_enabled=False,
        )


class BeyondTheEndError(Exception):
    """The requested page begins after the last row; ``total`` is the number of rows."""

    def __init__(self, total: int) -> None:
        super().__init__(f"only {total} rows")
        self.total = total


async def check_schema(rest: Rest, *, public_base: str) -> None:
    """Check that the database has the schema of s3seg, with the same public base URL as this process.

    Raises:
        ConfigurationError: If it does not; the message says what to do.
        UnavailableError: If the database does not respond.
    """
    found = await rest.info()
    if found["version"] < _SCHEMA_VERSION:
        raise ConfigurationError("the database has an old schema of s3seg; run: s3seg db migrate")
    if found["public_base_url"] != public_base.rstrip("/"):
        raise MismatchError(
            f"S3SEG_PUBLIC_BASE_URL is {public_base!r} here and {found['public_base_url']!r} in the database: "
            "correct the setting, or update the database with: s3seg db migrate"
        )


def _checked(answer: Any) -> Any:
    if isinstance(answer.data, str) and answer.data.lstrip().startswith("<"):
        raise UnavailableError("the response is not from the database; its address is probably wrong")
    return answer


def _beyond_the_end(err: APIError) -> BeyondTheEndError | None:
    """Read the total from PostgREST's error about an offset past the end, which gives it only in a sentence."""
    if err.code != "PGRST103":
        return None
    digits = [word for word in json.dumps(err.details).replace('"', " ").split() if word.isdigit()]
    return BeyondTheEndError(int(digits[-1]) if digits else 0)
