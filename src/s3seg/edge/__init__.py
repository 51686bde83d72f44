"""The edge's use cases: upload, submit, watch, list, delete. Async, on ports only, without HTTP.

    edge = Edge(objects=..., tasks=..., authenticator=..., limiter=..., inference=...)
    caller = await edge.authenticate(f"Bearer {token}")
    image = (await edge.upload(caller, Upload(data=Path("cat.png").read_bytes()))).value
    task = (await edge.submit(caller, SegmentRequest(image_url=image.image_url, text_prompt="cat"))).task

Ownership, credits, rate limits and validation live here; the routes in `s3seg.web.edge` only translate.
"""

from s3seg.edge.service import Edge, EdgeOptions, Limited
from s3seg.edge.uploads import Upload

__all__ = ["Edge", "EdgeOptions", "Limited", "Upload"]
