"""The settings of the services, from environment variables or a ``.env`` file; frozen once read.

A variable is named ``S3SEG_`` plus the field's name in capitals, such as ``S3SEG_DATA_DIR``. The key of the gpu
service is also read from ``API_SECRET_KEY``, its name in the contract.
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
from s3seg.tasks.limits import RATE_LIMITS, UNLIMITED, Action, RateTable, Tier

_ADAPTER = "a built-in name, the name of an entry point, or 'package.module:factory'"


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s?#]", text):
        raise ValueError("is not a URL; it must look like https://host or http://host:port, without ? or #")
    return text


def _bare_address(text: str) -> str:
    if urlsplit(_address(text)).path.strip("/"):
        raise ValueError("must end after the host; remove the path (such as /rest/v1, or the name of the bucket)")
    return text


def _key(text: str) -> str:
    if re.fullmatch(r"[!-~]+", text) is None:
        raise ValueError("contains a character that no key has, such as a space or a curly quote; copy it again")
    return text


_SHORTEST_KEY = 16


def _long_key(key: SecretStr) -> SecretStr:
    if 0 < len(key.get_secret_value().strip().encode()) < _SHORTEST_KEY:
        raise ValueError(
            f"is shorter than {_SHORTEST_KEY} bytes, so it could be guessed; generate one with: openssl rand -hex 32"
        )
    return key


def _secret_key(key: SecretStr) -> SecretStr:
    _key(key.get_secret_value())
    return key


def _header_key(key: SecretStr) -> SecretStr:
    if re.search(r"[\x00-\x1f\x7f]", key.get_secret_value()):
        raise ValueError("contains a line break or another control character, which cannot be sent; copy it again")
    return key


def _publishable_key(key: SecretStr) -> SecretStr:
    if _opens_everything(_key(key.get_secret_value())):
        raise ValueError(
            "is a secret (or service_role) key, which the edge must never have; rotate the key if it was used here"
        )
    return key


def _opens_everything(key: str) -> bool:
    """Whether the key bypasses row-level security: a new secret key, or a legacy service_role key, which is a JWT."""
    if key.startswith("sb_secret_"):
        return True
    try:
        claims = json.loads(base64.urlsafe_b64decode(f"{key.split('.')[1]}=="))
    except (IndexError, ValueError):
        return False
    return isinstance(claims, dict) and claims.get("role") == "service_role"


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    parts = urlsplit(_bare_address(text))
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
    return f"{parts.scheme}://{parts.netloc.lower()}"  # as browsers write it


def _header_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", text) is None:
        raise ValueError("is not the name of a header")
    return text


def _bucket(name: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) is None:
        raise ValueError("is not a bucket name; it must be 3 to 63 lower-case letters, digits, dots and hyphens")
    return name


Address = Annotated[str, AfterValidator(_address)]
BareAddress = Annotated[str, AfterValidator(_bare_address)]
Key = Annotated[str, AfterValidator(_key)]
SecretKey = Annotated[SecretStr, AfterValidator(_secret_key)]
PublishableKey = Annotated[SecretStr, AfterValidator(_publishable_key)]
LongKey = Annotated[SecretStr, AfterValidator(_long_key)]
HeaderKey = Annotated[LongKey, AfterValidator(_header_key)]
Origin = Annotated[str, AfterValidator(_origin)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Bucket = Annotated[str, AfterValidator(_bucket)]


class Settings(BaseSettings):
    """Settings of the edge, the gpu service and the operators' commands. A process ignores those that it does not use.

    Raises:
        ConfigurationError: A value is not valid; names the variable, never the value.
    """

    model_config = SettingsConfigDict(
        env_prefix="S3SEG_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # keeps a secret that does not validate out of the log
        str_strip_whitespace=True,  # pasted values often end with a line break
    )

    if not TYPE_CHECKING:  # type checkers see the fields instead

        def __init__(self, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValidationError as err:
                raise ConfigurationError(_explain(err)) from None
            except SettingsError as err:
                raise ConfigurationError(f"{err}; write lists as JSON") from None

    data_dir: Annotated[
        Path, Field(description="Folder of files, tasks and the signing key; edge and gpu service share it")
    ] = Path.home() / ".s3seg"
    public_base_url: Annotated[
        Address,
        Field(
            description="Base URL of images and masks; it is stored with each image, so choose it once",
        ),
    ] = "http://127.0.0.1:8000/files"

    object_store: Annotated[str, Field(description=f"files, memory, r2, or {_ADAPTER}")] = "files"
    task_store: Annotated[str, Field(description=f"sqlite, memory, supabase, or {_ADAPTER}")] = "sqlite"
    task_queue: Annotated[
        str | None, Field(description="As task_store, for workers; the same as task_store if unset")
    ] = None
    accounts: Annotated[
        str | None, Field(description="As task_store, for operators; the same as task_store if unset")
    ] = None
    webhooks: Annotated[
        str | None, Field(description="As task_store, for webhooks; the same as task_store if unset")
    ] = None
    webhook_outbox: Annotated[
        str | None, Field(description="As task_store, for what sends webhooks; the same as task_store if unset")
    ] = None
    webhooks_to_private_addresses: Annotated[
        bool, Field(description="Send webhooks to any address, in plain HTTP too: only if you trust all users")
    ] = False
    authenticator: Annotated[str, Field(description=f"local, supabase, or {_ADAPTER}")] = "local"
    rate_limiter: Annotated[
        str | None,
        Field(
            description=f"sqlite, supabase, memory (for each process), or {_ADAPTER}; if unset, the same as task_store "
            "where that has one, so that the limits hold for all processes together"
        ),
    ] = None
    inference: Annotated[
        str, Field(description=f"How workers are told about new tasks: memory (same process), http, or {_ADAPTER}")
    ] = "memory"

    api_secret_key: Annotated[
        HeaderKey | None,
        Field(
            validation_alias=AliasChoices("S3SEG_API_SECRET_KEY", "API_SECRET_KEY"),
            description="Key that the edge sends to the gpu service, at least 16 bytes: openssl rand -hex 32",
        ),
    ] = None

    api_secret_key_previous: Annotated[
        HeaderKey | None,
        Field(
            validation_alias=AliasChoices("S3SEG_API_SECRET_KEY_PREVIOUS", "API_SECRET_KEY_PREVIOUS"),
            description="Second key that the gpu service accepts during a key rotation",
        ),
    ] = None

    checkpoint: Annotated[
        str | None, Field(description="Weights that the gpu service loads, as in `s3seg segment --checkpoint`")
    ] = None
    device: Annotated[
        str,
        Field(
            description="auto, cuda:0, mps, cpu; or several, separated by commas (cuda:0,cuda:1): the gpu service then "
            "runs the network in a process for each"
        ),
    ] = "auto"
    network_process: Annotated[
        bool | None,
        Field(
            description="Run the network in a process of its own, so that the rest of the service never delays it; "
            "unset: if the device is cuda, or if there are several devices"
        ),
    ] = None
    dtype: Annotated[
        str, Field(description="auto (bfloat16 on CUDA and CPUs that are fast at it, else float32) or a precision")
    ] = "auto"
    compile: Annotated[
        bool | None,
        Field(
            description="true: compile the network, and record CUDA graphs on CUDA; the first start takes minutes, "
            "later ones use the compiled code in TORCHINDUCTOR_CACHE_DIR (~/.cache/s3seg/compiled). "
            "Unset: only record CUDA graphs, on CUDA. false: neither"
        ),
    ] = None
    batch_images: Annotated[int, Field(ge=1, le=256, description="Pictures encoded in one forward pass")] = 8
    batch_prompts: Annotated[int, Field(ge=1, le=1024, description="Prompts decoded in one batch")] = 12
    embedding_cache_mb: Annotated[
        int,
        Field(
            ge=0,
            description="Device memory in MB for embeddings of earlier pictures; full SAM 3 needs 55 MB per picture",
        ),
    ] = 1024
    max_megapixels: Annotated[float, Field(gt=0, le=178, description="Pictures with more megapixels are refused")] = (
        100.0
    )
    decode_processes: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Pictures that a service decodes at the same time, each in its own process, and one per user; "
            "0 decodes in the service's threads, where no deadline applies: only if you trust all users",
        ),
    ] = 4
    upload_check: Annotated[
        Literal["decode", "header"],
        Field(
            description="How the edge checks uploads: decode reads all pixels; header reads the structure of the file, "
            "which needs neither Pillow nor numpy, and leaves damaged pixels to the worker, who refunds the task"
        ),
    ] = "decode"
    decode_deadline_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=3600,
            description="Seconds of processor time after which a picture that is being decoded is refused",
        ),
    ] = 20.0
    decode_memory_mb: Annotated[
        int,
        Field(
            ge=64,
            le=65536,
            description="Memory in MB for decoding a picture; pictures that need more are refused",
        ),
    ] = 2000
    cpu_threads: Annotated[int | None, Field(ge=1, description="Threads for making masks; one per core if unset")] = (
        None
    )
    claimed_at_once: Annotated[
        int, Field(ge=1, description="Tasks that a worker claims at a time; three batches keep the model busy")
    ] = 24
    tiled_at_once: Annotated[
        int, Field(ge=1, description="Tasks with tiles that a worker processes at a time, beside the others")
    ] = 2
    max_tiles: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="Tiles that a picture may be cut into, each of which takes the time of a picture; tasks with "
            "more are refused, and with 0 all tasks with tiles",
        ),
    ] = 256
    admitted_at_once: Annotated[
        int, Field(ge=1, description="Requests and tasks in progress beyond which the gpu service answers 503")
    ] = 96
    lease_s: Annotated[
        float,
        Field(ge=1, le=3600, description="Seconds after which another worker takes over the task of a dead one"),
    ] = 60.0
    poll_s: Annotated[float, Field(gt=0, description="Seconds between polls of an empty queue")] = 1.0
    retry_after_s: Annotated[
        float, Field(ge=0, description="Seconds between a failed attempt and the next, doubling with each attempt")
    ] = 2.0
    drain_s: Annotated[float, Field(ge=0, description="Seconds that work in progress gets to finish after SIGTERM")] = (
        30.0
    )

    max_connections: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Connections that a service keeps open; at most half the number of files that it may open",
        ),
    ] = 1000

    integrations: Annotated[
        tuple[str, ...],
        Field(description="Tools whose routes the gpu service offers, as a JSON list; see `s3seg serve gpu --help`"),
    ] = ()

    label_studio_url: Annotated[
        Address | None, Field(description="Address of the Label Studio whose pictures the gpu service may read")
    ] = None
    label_studio_api_key: Annotated[
        SecretKey | None, Field(description="Access token of a user of that Label Studio, from its account page")
    ] = None

    gpu_url: Annotated[Address, Field(description="Address of the gpu service, for inference=http")] = (
        "http://127.0.0.1:8001"
    )

    cors_origins: Annotated[
        tuple[Origin, ...],
        Field(description='Origins whose pages may call the edge (CORS), as a JSON list; ["*"] for all'),
    ] = ()
    cors_headers: Annotated[
        tuple[HeaderName, ...],
        Field(description='Headers, beside those of the API, that these pages may send, as a JSON list; ["*"] for all'),
    ] = ("*",)
    playground: Annotated[bool, Field(description="Serve a page at / to use the edge from a browser")] = True
    upload_megapixels: Annotated[
        float,
        Field(
            gt=0,
            le=178,
            description="Uploads with more megapixels are refused; decoding takes 7 to 18 MB per megapixel",
        ),
    ] = 50.0

    rate_limits: Annotated[
        Literal["contract", "off"], Field(description="The contract's limits, or none (for load tests)")
    ] = "contract"
    welcome_credits: Annotated[int, Field(ge=0, description="Credits of a new local account")] = 10
    task_deadline_s: Annotated[
        float, Field(gt=0, description="Seconds after which an unfinished task ends in error and is refunded")
    ] = 900.0
    max_attempts: Annotated[int, Field(ge=1, le=100, description="Attempts after which a task ends in error")] = 3
    reap_every_s: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds between two runs of the job that ends and refunds tasks that cannot finish; 0: never",
        ),
    ] = 60.0
    retention_h: Annotated[
        float,
        Field(
            ge=0,
            le=87_600,
            description="Hours after which images, and results once their task has ended, are removed; users may ask "
            "for less with expires_in_s. Applies to what is stored from then on. 0: never",
        ),
    ] = 0.0
    gc_every_h: Annotated[
        float,
        Field(ge=0, description="Hours between two runs of the job that removes unused objects; 0: never"),
    ] = 24.0
    database_timeout_s: Annotated[
        float, Field(gt=0, description="Seconds to wait for the database before answering 503")
    ] = 5.0

    supabase_url: Annotated[
        BareAddress | None, Field(description="Address of the Supabase project: https://<ref>.supabase.co")
    ] = None
    supabase_publishable_key: Annotated[
        PublishableKey | None, Field(description="Publishable (or legacy anon) key, for the edge")
    ] = None
    supabase_realtime: Annotated[
        bool,
        Field(
            description="Let clients of signed-in users wait for tasks with Supabase Realtime instead of polling; "
            "each holds one connection to the project"
        ),
    ] = False
    supabase_secret_key: Annotated[
        SecretKey | None,
        Field(description="Secret (or legacy service_role) key, for workers and operators; never set it on the edge"),
    ] = None
    supabase_jwt_secret: Annotated[
        LongKey | None, Field(description="Legacy JWT secret, only for projects that still sign tokens with it")
    ] = None
    database_url: Annotated[
        SecretStr | None, Field(description="PostgreSQL connection string of the project, only for `s3seg db`")
    ] = None

    r2_endpoint_url: Annotated[
        BareAddress | None, Field(description="https://<account id>.r2.cloudflarestorage.com, without the bucket")
    ] = None
    r2_bucket: Annotated[Bucket | None, Field(description="Bucket of images and masks")] = None
    r2_access_key_id: Annotated[Key | None, Field(description="Access key id of an R2 API token for that bucket")] = (
        None
    )
    r2_secret_access_key: Annotated[SecretKey | None, Field(description="Secret access key of the same token")] = None
    r2_public: Annotated[
        bool,
        Field(description="Whether public_base_url is the bucket's own domain; if not, the edge presigns URLs"),
    ] = True

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that the network runs on."""
        return tuple(name.strip() for name in self.device.split(","))

    @property
    def networks_in_processes(self) -> bool:
        """Whether each network has a process of its own."""
        if self.network_process is None:
            return len(self.devices) > 1 or self.device.startswith("cuda")
        return self.network_process or len(self.devices) > 1

    @property
    def retention_s(self) -> int | None:
        """Seconds after which images and results end at the latest; None for never."""
        return max(1, round(self.retention_h * 3600)) if self.retention_h else None

    @property
    def rates(self) -> RateTable:
        """Requests allowed in any 60 seconds, by tier and action."""
        if self.rate_limits == "contract":
            return RATE_LIMITS
        return {tier: dict.fromkeys(Action, UNLIMITED) for tier in Tier}


def _explain(err: ValidationError) -> str:
    """Say which variables are wrong and why, without their values, which may be secret."""
    words = []
    for found in err.errors(include_url=False, include_context=False, include_input=False):
        name = str(found["loc"][0]) if found["loc"] else ""
        variable = name if name.isupper() else f"S3SEG_{name.upper()}"
        words.append(f"{variable}: {found['msg'].removeprefix('Value error, ')}")
    return "; ".join(words)
