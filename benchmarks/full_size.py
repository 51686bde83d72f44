"""Full-size networks on a CPU: memory, time to load, and time of one picture and one prompt, with random weights.

``python -m benchmarks.full_size litetext`` takes one network, ``python -m benchmarks full_size`` both. SAM 3 needs 10
GB of memory and 4 GB of disk. Each measurement is a process of its own. What is computed does not depend on the
weights, except the masks, which are made for as many instances as happen to be found, twenty at most.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from s3seg.sam3.choices import DTYPES

NETWORKS = {"litetext": "sam3_lite_text", "sam3": "sam3"}
PICTURE = Path(__file__).parent.parent / "examples" / "pictures" / "street.png"
ROUNDS = 3


def main(names: list[str] | None = None) -> None:
    """Measure the named networks, each in float32 and in bfloat16."""
    print("| network | precision | parameters | load | one picture | one prompt on it | most memory |")
    print("|---|---|---|---|---|---|---|")
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            _in_process("make", name, folder)
            for dtype in ("float32", "bfloat16"):
                said = json.loads(_in_process("measure", folder, dtype))
                seconds = " | ".join(f"{said[step]:.1f} s" for step in ("load", "image", "prompt"))
                print(
                    f"| {name} | {dtype} | {said['parameters'] / 1e6:.0f} M | {seconds} | {said['memory_gb']:.1f} GB |"
                )


def _in_process(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.full_size", *arguments], stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode()


def make(name: str, folder: Path, dtype: str = "float32") -> None:
    """Write a checkpoint with random weights, in the layout of transformers, and a small tokenizer.

    Args:
        name: One of `NETWORKS`.
        folder: Where to write it.
        dtype: Precision of the file.
    """
    from safetensors.torch import load_file, save_file
    from tests.sam3.random_models import random_oracle
    from tests.sam3.small_tokenizer import merges, write_packed

    from benchmarks.gpu.models import peer_config

    random_oracle(peer_config(NETWORKS[name], quick=False), folder)
    write_packed(folder, merges())
    for file in folder.glob("*.safetensors") if dtype != "float32" else ():
        save_file({name: tensor.to(DTYPES[dtype]) for name, tensor in load_file(file).items()}, file)


def measure(folder: Path, dtype: str) -> None:
    """Load a checkpoint, segment a picture some times, and print the best times as JSON."""
    import resource

    import s3seg

    start = time.perf_counter()
    seg = s3seg.Segmenter(folder, device="cpu", dtype=dtype)
    load = time.perf_counter() - start
    encoded = [seg.encode(PICTURE) for _ in range(ROUNDS)]
    results = [seg.segment(one, "cat", max_instances=20) for one in encoded]
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    said = {
        "parameters": seg.parameters,
        "load": load,
        "image": min(one.milliseconds["image"] for one in encoded) / 1000,
        "prompt": min(one.timings["prompt"] for one in results) / 1000,
        "memory_gb": kilobytes / (1e9 if sys.platform == "darwin" else 1e6),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", name, folder]:
            make(name, Path(folder))
        case ["make", name, folder, dtype] if dtype in DTYPES:
            make(name, Path(folder), dtype)
        case ["measure", folder, dtype] if dtype in DTYPES:
            measure(Path(folder), dtype)
        case names:
            main(names)
