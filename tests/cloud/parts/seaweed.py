"""A SeaweedFS server with the S3 API; it rejects wrong secrets, expired URLs and wrong checksums."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloud.parts.downloads import weed
from tests.cloud.parts.processes import Server, free_ports, running

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
READER_ACCESS_KEY, READER_SECRET_KEY = "readerkey", "readersecret"
BUCKET, PUBLIC_BUCKET = "s3seg", "s3seg-public"


@dataclass(frozen=True)
class Bucket:
    """A running S3 server with a private and a public bucket."""

    endpoint: str
    client: Any

    def empty(self) -> None:
        """Remove every object."""
        for bucket in (BUCKET, PUBLIC_BUCKET):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for entry in page.get("Contents", ()):
                    self.client.delete_object(Bucket=bucket, Key=entry["Key"])


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[Bucket]:
    """Run a server with a private bucket, and a public one that everybody may read."""
    import boto3
    from botocore.config import Config

    s3, master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = free_ports(8)
    identities = [
        {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}],
            "actions": ["Read", "List"],
        },
        {"name": "anonymous", "actions": [f"Read:{PUBLIC_BUCKET}"]},
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="auto",
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=1,
            read_timeout=5,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )

    def ready() -> None:
        for bucket in (BUCKET, PUBLIC_BUCKET):
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"1")
            client.delete_object(Bucket=bucket, Key="ready")

    command = [
        *(weed(), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64"),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=20"),
        *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={config}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),  # 0 turns it off
    ]
    server = Server("SeaweedFS", command, log=folder / "weed.log", ready=ready, stop_signal=signal.SIGKILL, cwd=folder)
    with running(server):
        yield Bucket(f"http://127.0.0.1:{s3}", client)
    client.close()
