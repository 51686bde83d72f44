"""Where the weights are: named ones, local folders, the Hugging Face cache; how to get and check them.

A checkpoint is a folder with weights (``model.safetensors``, also in shards, or ``sam3.pt``), ``config.json``
and a tokenizer. :func:`resolve` finds one on this machine and never touches the network; :func:`pull` brings
one here; :func:`verify` reads it through; :func:`inventory` lists what there is. No torch in here.
"""

from s3seg.checkpoints._layout import check_safetensors, hub_cache, hub_home
from s3seg.checkpoints._pull import Progress, pull
from s3seg.checkpoints._registry import KNOWN, Checkpoint, InventoryItem, KnownCheckpoint, inventory, resolve
from s3seg.checkpoints._verify import FileCheck, Verification, verify

__all__ = [
    "KNOWN",
    "Checkpoint",
    "FileCheck",
    "InventoryItem",
    "KnownCheckpoint",
    "Progress",
    "Verification",
    "check_safetensors",
    "hub_cache",
    "hub_home",
    "inventory",
    "pull",
    "resolve",
    "verify",
]
