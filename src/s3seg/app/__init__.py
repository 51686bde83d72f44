"""Settings, the adapters that they choose, and the services built from them."""

from s3seg.app.background import maintenance
from s3seg.app.engine import make_engine
from s3seg.app.parts import Parts, local_keys, revoked_tokens
from s3seg.app.services import edge_app, gpu_app, local, whole_app
from s3seg.app.settings import Settings

__all__ = [
    "Parts",
    "Settings",
    "edge_app",
    "gpu_app",
    "local",
    "local_keys",
    "maintenance",
    "make_engine",
    "revoked_tokens",
    "whole_app",
]
