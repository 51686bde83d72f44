"""A client of the edge service, with the same call and the same result as a `Segmenter` on this machine.

    client = Client("https://s3seg.example", token="...")
    result = client.segment("park.png", "tree")

`Client` and `AsyncClient` share one core, which defines each call as a generator of steps: the requests to send, how
to interpret the responses, and when to retry. The two classes only execute the steps.
"""

from s3seg.client._async import AsyncClient
from s3seg.client._steps import RetryPolicy
from s3seg.client._sync import Client

__all__ = ["AsyncClient", "Client", "RetryPolicy"]
