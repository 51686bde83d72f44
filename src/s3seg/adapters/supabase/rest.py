"""Calls to a project's PostgREST: who they speak for, and what its refusals mean."""

from __future__ import annotations

import json
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol

import httpx
from postgrest import APIError, AsyncPostgrestClient
from pydantic import SecretStr

from s3seg.adapters.supabase.errors import lost_answer, translated
from s3seg.errors import AuthInvalidError, ConfigurationError, InvalidRequestError, UnavailableError


class _Builder(Protocol):
    async def execute(self) -> Any: ...


class Rest:
    """One project's PostgREST: connections shared by all calls, headers by none.

    Every call gets a client of its own, which costs microseconds; a client whose token is changed between calls
    would answer one user with another's rows.

    Args:
        url: The project's URL, ``https://<ref>.supabase.co``.
        key: The API key: publishable (or legacy anon) for users' calls, secret (or legacy service_role) for
            workers' and operators'.
        timeout_s: Seconds to wait for a connection, and for an answer.
        transport: How to reach the project, if not over the network as usual.
        path: Where PostgREST lies below ``url``.
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

    def as_user(self, token: str) -> AsyncPostgrestClient:
        """A client for one call that speaks for the user whose token it is.

        Raises:
            AuthInvalidError: If there is no token to pass on.
        """
        if not token:
            raise AuthInvalidError("the caller's token is needed to speak to the database for them")
        return self._client({"Authorization": f"Bearer {token}"})

    def as_key(self) -> AsyncPostgrestClient:
        """A client for one call that speaks for the API key itself."""
        key = self._key.get_secret_value()
        # the new keys are no JWTs: the gateway exchanges them itself
        return self._client({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})

    async def call(
        self, client: AsyncPostgrestClient, function: str, arguments: dict[str, Any], *, safe: bool = False
    ) -> Any:
        """Call a function of the database's; what it returned. See `run`."""
        return await self.run(client.rpc(function, arguments), safe=safe)

    async def run(self, builder: _Builder, *, safe: bool = False) -> Any:
        """Run a query; its rows, or what the function returned.

        Args:
            builder: The query.
            safe: Whether running it twice is as good as once, so that a lost answer may be asked for again.

        Raises:
            S3segError: What the refusal means, without a word of what the database said.
        """
        return (await self._execute(builder, safe=safe)).data

    async def run_counted(self, builder: _Builder) -> tuple[list[dict[str, Any]], int]:
        """Run a query that counts: its rows, and how many there are over all pages."""
        try:
            answer = await self._execute(builder, safe=True)
        except BeyondTheEndError as err:
            return [], err.total
        return answer.data, answer.count or 0

    async def info(self) -> dict[str, Any]:
        """What the database says of itself: ``version`` of the schema, ``public_base_url``."""
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
                raise translated(err) from None  # its words may hold rows, which belong in no log
            except UnicodeEncodeError:
                raise InvalidRequestError("the request holds text that is not Unicode") from None
            except httpx.TransportError as err:
                if last or isinstance(err, httpx.TimeoutException):
                    raise lost_answer(err) from None
        raise AssertionError("unreachable")

    def _client(self, headers: dict[str, str]) -> AsyncPostgrestClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                transport=self._transport or httpx.AsyncHTTPTransport(retries=1),  # of connecting, never of calls
                timeout=self._timeout_s,
                follow_redirects=False,
                trust_env=False,
                # what one user's answer sets must not go along with another's call
                cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            )
        return AsyncPostgrestClient(
            self._base,
            headers={"apikey": self._key.get_secret_value(), **headers},
            http_client=self._http,
            retry_enabled=False,
        )


class BeyondTheEndError(Exception):
    """A page past the last row was asked for."""

    def __init__(self, total: int) -> None:
        super().__init__(f"only {total} rows")
        self.total = total


async def check_schema(rest: Rest, *, public_base: str) -> None:
    """See that the database has our schema, set up for the same addresses as this process.

    Raises:
        ConfigurationError: If it has not; says what to do.
        UnavailableError: If it does not answer.
    """
    found = await rest.info()
    if found["public_base_url"] != public_base.rstrip("/"):
        raise ConfigurationError(
            f"S3SEG_PUBLIC_BASE_URL is {public_base!r} here and {found['public_base_url']!r} in the database: "
            "correct it, or bring the database up to it with: s3seg db migrate"
        )


def _checked(answer: Any) -> Any:
    if isinstance(answer.data, str) and answer.data.lstrip().startswith("<"):
        raise UnavailableError("something else answers where the database should")
    return answer


def _beyond_the_end(err: APIError) -> BeyondTheEndError | None:
    """PostgREST refuses an offset past the end, and tells the total only in words."""
    if err.code != "PGRST103":
        return None
    digits = [word for word in json.dumps(err.details).replace('"', " ").split() if word.isdigit()]
    return BeyondTheEndError(int(digits[-1]) if digits else 0)
