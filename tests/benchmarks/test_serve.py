"""The servers that `benchmarks serve` measures become ready and answer."""

from __future__ import annotations

from io import BytesIO

import pytest
from benchmarks.serve import Ours
from PIL import Image


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("network", ["held", "held-process"])
async def test_our_server_answers_with_a_network_that_only_waits(network, tmp_path):
    file = BytesIO()
    Image.new("RGB", (320, 240), "white").save(file, "JPEG")
    side = Ours(tmp_path, network)
    server = side.start()
    try:
        (request,) = await side.prepare([(file.getvalue(), "cat")])
        with side.sender() as send:
            assert await send(request) == 200
    finally:
        server.end()
        await side.aclose()
