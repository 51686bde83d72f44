"""Find, download and verify checkpoints.

A checkpoint is a folder with weights (see :mod:`s3seg.checkpoints.weight_files`), ``config.json`` and a tokenizer.
:func:`resolve` finds one on this machine without using the network, :func:`pull` downloads one, :func:`verify` checks
its files, and :func:`inventory` lists the checkpoints that are available. Nothing in this package imports torch.
"""

from s3seg.checkpoints._known import FOR_PHOTOGRAPHS, KNOWN, KnownCheckpoint
from s3seg.checkpoints._layout import check_safetensors, hub_cache, hub_home
from s3seg.checkpoints._licences import Licence
from s3seg.checkpoints._pull import Offer, Progress, pull
from s3seg.checkpoints._registry import Checkpoint, InventoryItem, inventory, resolve
from s3seg.checkpoints._verify import FileCheck, Verification, verify

__all__ = [
    "FOR_PHOTOGRAPHS",
    "KNOWN",
    "Checkpoint",
    "FileCheck",
    "InventoryItem",
    "KnownCheckpoint",
    "Licence",
    "Offer",
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
