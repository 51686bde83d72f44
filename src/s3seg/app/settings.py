"""Every setting of the services, from the environment or a ``.env`` file; frozen once read.

The name in the environment is the field's in capitals with ``S3SEG_`` before it: ``S3SEG_DATA_DIR``. The key
of the gpu service is also read from ``API_SECRET_KEY``, its name in the contract.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from s3seg.errors import ConfigurationError
from s3seg.tasks.limits import RATE_LIMITS, Action, RateTable, Tier

_ADAPTER = "a built-in name, the name of an entry point, or 'package.module:factory'"
_UNLIMITED = 1_000_000_000


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s?#]", text):
        raise ValueError("is no address: it must be like https://host or http://host:port, without ? or #")
    return text


def _bare_address(text: str) -> str:
    if urlsplit(_address(text)).path.strip("/"):
        raise ValueError("must end after the host: leave away the path (/rest/v1, or the name of the bucket)")
    return text


def _key(text: str) -> str:
    if re.fullmatch(r"[!-~]+", text) is None:
        raise ValueError("has a character that no key has, such as a blank or a curly quote; copy it anew")
    return text


def _secret_key(key: SecretStr) -> SecretStr:
    _key(key.get_secret_value())
    return key


def _publishable_key(key: SecretStr) -> SecretStr:
    if _opens_everything(_key(key.get_secret_value())):
        raise ValueError(
            "holds a secret (or service_role) key, which the edge must never have; rotate it if it was used"
        )
    return key


def _opens_everything(key: str) -> bool:
    """Whether it is a key of the service: of the new kind, or a legacy one, which is a JWT."""
    if key.startswith("sb_secret_"):
        return True
    try:
        claims = json.loads(base64.urlsafe_b64decode(f"{key.split('.')[1]}=="))
    except (IndexError, ValueError):
        return False
    return isinstance(claims, dict) and claims.get("role") == "service_role"


def _bucket(name: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) is None:
        raise ValueError("is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens")
    return name


Address = Annotated[str, AfterValidator(_address)]
BareAddress = Annotated[str, AfterValidator(_bare_address)]
Key = Annotated[str, AfterValidator(_key)]
SecretKey = Annotated[SecretStr, AfterValidator(_secret_key)]
PublishableKey = Annotated[SecretStr, AfterValidator(_publishable_key)]
Bucket = Annotated[str, AfterValidator(_bucket)]


class Settings(BaseSettings):
    """Settings of edge, gpu and operator commands; what a process does not need it does not read.

    Raises:
        ConfigurationError: If one cannot be what it is; names its variable, and never its value.
    """

    model_config = SettingsConfigDict(
        env_prefix="S3SEG_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # a secret that does not validate stays out of the log
        str_strip_whitespace=True,  # what is pasted often ends with a line
    )

    if not TYPE_CHECKING:  # so that type checkers go on to see the fields

        def __init__(self, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValidationError as err:
                raise ConfigurationError(_in_words(err)) from None
            except SettingsError as err:
                raise ConfigurationError(f"{err}; lists are written as JSON") from None

    data_dir: Annotated[
        Path, Field(description="Where files, tasks and the signing key live; edge and gpu share it")
    ] = Path.home() / ".s3seg"
    public_base_url: Annotated[
        Address,
        Field(
            description="What image and mask URLs begin with; stored with each image, so choose it once",
        ),
    ] = "http://127.0.0.1:8000/files"

    object_store: Annotated[str, Field(description=f"files, memory, r2, or {_ADAPTER}")] = "files"
    task_store: Annotated[str, Field(description=f"sqlite, memory, supabase, or {_ADAPTER}")] = "sqlite"
    task_queue: Annotated[str | None, Field(description="As task_store, for workers; follows it if unset")] = None
    accounts: Annotated[str | None, Field(description="As task_store, for operators; follows it if unset")] = None
    authenticator: Annotated[str, Field(description=f"local, supabase, or {_ADAPTER}")] = "local"
    rate_limiter: Annotated[str, Field(description=f"memory, or {_ADAPTER}")] = "memory"
    inference: Annotated[str, Field(description=f"memory (same process), http, or {_ADAPTER}")] = "memory"

    api_secret_key: Annotated[
        SecretStr | None,
        Field(
            validation_alias=AliasChoices("S3SEG_API_SECRET_KEY", "API_SECRET_KEY"),
            description="Key that the edge shows to the gpu service",
        ),
    ] = None

    api_secret_key_previous: Annotated[
        SecretStr | None,
        Field(
            validation_alias=AliasChoices("S3SEG_API_SECRET_KEY_PREVIOUS", "API_SECRET_KEY_PREVIOUS"),
            description="A second key that the gpu service accepts while keys are being changed",
        ),
    ] = None

    checkpoint: Annotated[
        str | None, Field(description="Weights that the gpu service loads; as `s3seg segment --checkpoint`")
    ] = None
    device: Annotated[str, Field(description="auto, cuda:0, mps, cpu")] = "auto"
    dtype: Annotated[str, Field(description="auto (bfloat16 on CUDA, else float32), float32, bfloat16, float16")] = (
        "auto"
    )
    batch_images: Annotated[int, Field(ge=1, le=256, description="Pictures encoded in one forward pass")] = 8
    batch_prompts: Annotated[int, Field(ge=1, le=1024, description="Prompts decoded in one go")] = 12
    embedding_cache_mb: Annotated[
        int,
        Field(ge=0, description="Device memory for embeddings of earlier pictures; full SAM 3 takes 55 each"),
    ] = 1024
    max_megapixels: Annotated[float, Field(gt=0, le=178, description="Larger pictures are refused")] = 100.0
    cpu_threads: Annotated[
        int | None, Field(ge=1, description="Threads for reading pictures and making masks; as many as cores if unset")
    ] = None
    claimed_at_once: Annotated[
        int, Field(ge=1, description="Waiting tasks that a worker takes at a time; three batches keep a network busy")
    ] = 24
    admitted_at_once: Annotated[
        int, Field(ge=1, description="Requests and tasks beyond which the gpu service answers 503")
    ] = 96
    lease_s: Annotated[
        float,
        Field(ge=1, le=3600, description="Seconds after which a dead worker's task is taken by another"),
    ] = 60.0
    poll_s: Annotated[float, Field(gt=0, description="Seconds between looks at an empty queue")] = 1.0
    retry_after_s: Annotated[
        float, Field(ge=0, description="Seconds that a failed attempt waits before the next, doubling with each")
    ] = 2.0
    drain_s: Annotated[float, Field(ge=0, description="Seconds that work gets to finish after SIGTERM")] = 30.0

    gpu_url: Annotated[Address, Field(description="Where inference=http finds the gpu service")] = (
        "http://127.0.0.1:8001"
    )

    cors_origins: Annotated[
        tuple[str, ...], Field(description='Origins whose pages may call the edge, as a JSON list; ["*"] for all')
    ] = ()
    playground: Annotated[bool, Field(description="Serve a page at / with which a browser can use the edge")] = True
    upload_megapixels: Annotated[
        float, Field(gt=0, le=178, description="Larger uploads are refused; decoding one takes 7 MB a megapixel")
    ] = 50.0

    rate_limits: Annotated[
        Literal["contract", "off"], Field(description="The contract's table, or none (for load tests)")
    ] = "contract"
    welcome_credits: Annotated[int, Field(ge=0, description="Credits that a new local account begins with")] = 10
    task_deadline_s: Annotated[
        float, Field(gt=0, description="Seconds from acceptance after which a task ends in error, refunded")
    ] = 900.0
    max_attempts: Annotated[int, Field(ge=1, le=100, description="Attempts before a task ends in error")] = 3
    database_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds to wait for another process's write before answering 503")
    ] = 5.0

    supabase_url: Annotated[
        BareAddress | None, Field(description="The Supabase project, https://<ref>.supabase.co")
    ] = None
    supabase_publishable_key: Annotated[
        PublishableKey | None, Field(description="Publishable (or legacy anon) key: what the edge needs")
    ] = None
    supabase_secret_key: Annotated[
        SecretKey | None,
        Field(description="Secret (or legacy service_role) key: what workers and operators need; never on the edge"),
    ] = None
    supabase_jwt_secret: Annotated[
        SecretStr | None, Field(description="Legacy JWT secret, only for projects that still sign tokens with it")
    ] = None
    database_url: Annotated[
        SecretStr | None, Field(description="The project's PostgreSQL address, only for `s3seg db`")
    ] = None

    r2_endpoint_url: Annotated[
        BareAddress | None, Field(description="https://<account id>.r2.cloudflarestorage.com, without the bucket")
    ] = None
    r2_bucket: Annotated[Bucket | None, Field(description="Bucket of images and masks")] = None
    r2_access_key_id: Annotated[Key | None, Field(description="Of an R2 API token for that bucket")] = None
    r2_secret_access_key: Annotated[SecretKey | None, Field(description="Of the same token")] = None
    r2_public: Annotated[
        bool, Field(description="Whether public_base_url is the bucket's own domain; if not, the edge presigns")
    ] = True

    @property
    def rates(self) -> RateTable:
        """Actions allowed in any 60 seconds, by tier."""
        if self.rate_limits == "contract":
            return RATE_LIMITS
        return {tier: dict.fromkeys(Action, _UNLIMITED) for tier in Tier}


def _in_words(err: ValidationError) -> str:
    """Which variables are wrong and why; not what they hold, which may be a secret."""
    words = []
    for found in err.errors(include_url=False, include_context=False, include_input=False):
        name = str(found["loc"][0]) if found["loc"] else ""
        variable = name if name.isupper() else f"S3SEG_{name.upper()}"
        words.append(f"{variable}: {found['msg'].removeprefix('Value error, ')}")
    return "; ".join(words)
