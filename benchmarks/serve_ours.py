"""Our gpu service as `benchmarks.serve` starts it: ``python -m benchmarks.serve_ours real|held|held-process PORT``."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.held_network import held_network
from s3seg.app import gpu_app
from s3seg.app.settings import Settings
from s3seg.web.logs import configure_logging
from s3seg.web.server import run_server

if __name__ == "__main__":
    network, port = sys.argv[1:]
    configure_logging("WARNING")
    load = {"real": None, "held": held_network, "held-process": partial(held_network, in_a_process=True)}[network]
    # it answers requests only: its own loop would take the prepared tasks before they are asked for
    settings = Settings(poll_s=3600, network_process=network == "held-process")
    run_server(gpu_app(settings, load=load), host="127.0.0.1", port=int(port))
