"""Runs on ray, each in a process of its own: ``python -m tests.bulk.ray_scenarios NAME PICTURES OUT``.

They are scripts because warnings are errors in the tests, and ray warns about itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from s3seg.bulk.job import carry_out
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.shard_job import ShardJob
from s3seg.errors import UnavailableError
from tests.bulk.pretend import PretendNetwork, start_run

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"


class SlowNetwork(PretendNetwork):
    """A pretend network that takes a while for each picture, and whose process a poisoned picture kills."""

    def __init__(self, seconds: float) -> None:
        super().__init__(on_poison=lambda: os.kill(os.getpid(), signal.SIGKILL))
        self._seconds = seconds

    def segment_many(self, sources: Any, prompt: Any, **options: Any) -> Iterator[Any]:
        for one in super().segment_many(sources, prompt, **options):
            time.sleep(self._seconds)
            yield one


def load_quick(request: BulkRequest, device: str) -> SlowNetwork:
    return SlowNetwork(0.001)


def load_slow(request: BulkRequest, device: str) -> SlowNetwork:
    return SlowNetwork(0.05)


def pretend(
    pictures: Path,
    out: Path,
    *,
    load: Callable[..., Any] = load_quick,
    address: str | None = None,
    picture_timeout_s: float = 600,
) -> None:
    """Run with a pretend network, two processes, four pictures a shard."""
    from s3seg.bulk.engine import EngineOptions, RayEngine

    job = ShardJob(run=start_run(pictures, out), load=load, picture_timeout_s=picture_timeout_s)
    options = EngineOptions(address=address, actors=2, on_warning=print)
    print(carry_out(job, lambda: RayEngine(job, options), lambda progress: print(progress.counts.rows, flush=True)))


def slow(pictures: Path, out: Path) -> None:
    """Run with a network that takes 50 ms a picture."""
    pretend(pictures, out, load=load_slow)


def limited(pictures: Path, out: Path) -> None:
    """Run with two seconds for a picture."""
    pretend(pictures, out, picture_timeout_s=2)


def node_removed(pictures: Path, out: Path) -> None:
    """Run on a cluster of two nodes, of which one is removed by force when the first shard is done."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def remove() -> None:
        while not [*out.glob("results/part-*")]:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        print("removed", flush=True)

    threading.Thread(target=remove, daemon=True).start()
    try:
        pretend(pictures, out, load=load_slow, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def does_not_start(pictures: Path, out: Path) -> None:
    """Run where Ray does not start in time, as on a machine that is too busy."""
    import ray

    def init(*arguments: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore about it.")  # noqa: TRY002 (as Ray does)

    ray.init = init
    try:
        pretend(pictures, out)
    except UnavailableError as err:
        print("said:", err)


def dataset(pictures: Path, out: Path) -> None:
    """Call the function of the library, and compose its stage with one of the user's own."""
    import pyarrow as pa
    import ray

    import s3seg

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    found = s3seg.bulk(pictures, out, ["tree", "star"], checkpoint="embedded", device="cpu", actors=1, shard_rows=4)
    assert ray.is_initialized(), "the session of the program stays"
    assert found.count() == len([*pictures.iterdir()])
    assert sorted(found.columns()) == ["error", "height", "id", "instances", "sha256", "uri", "width"]
    by_row = {row["uri"]: row for row in found.take_all()}

    def keep_areas(batch: pa.Table) -> pa.Table:
        areas = [sum(one["area"] for one in row) for row in batch["instances"].to_pylist()]
        return batch.select(["uri", "error"]).append_column("area", pa.array(areas))

    own = (
        ray.data.from_items([{"uri": uri} for uri in by_row])
        .map_batches(
            s3seg.bulk.Segment,
            fn_constructor_args=(["tree", "star"],),
            fn_constructor_kwargs={"checkpoint": "embedded", "device": "cpu"},
            batch_format="pyarrow",
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=1,
        )
        .map_batches(keep_areas, batch_format="pyarrow", num_cpus=0.1)
    )
    for row in own.take_all():
        expected = by_row[row["uri"]]
        assert row["error"] == expected["error"]
        assert row["area"] == sum(one["area"] for one in expected["instances"])
    print("same", len(by_row))


if __name__ == "__main__":
    name, pictures_folder, out_folder = sys.argv[1:]
    scenarios = (pretend, slow, limited, node_removed, does_not_start, dataset)
    {one.__name__: one for one in scenarios}[name](Path(pictures_folder), Path(out_folder))
