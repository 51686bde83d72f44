"""A client of the edge service: the same call, with the same result, as a `Segmenter` on this machine.

    client = Client("https://s3seg.example", token="...")
    result = client.segment("park.png", "tree")

`Client` and `AsyncClient` are two faces of one core: what to send, what to make of the answer, and when to try again
is written once, as generators; a face only carries out their steps.
"""

from s3seg.client._async import AsyncClient
from s3seg.client._sync import Client

__all__ = ["AsyncClient", "Client"]
