"""The use cases of the public API: async, on ports only, without HTTP.

    edge = Edge(objects=..., tasks=..., authenticator=..., limiter=..., notifier=...)
    caller = await edge.authenticate(f"Bearer {token}")
    image = await edge.upload(caller, Upload(data=Path("cat.png").read_bytes()))
    submitted = await edge.submit(caller, SegmentRequest(image_url=image.image_url, text_prompt="cat"))
    task = await edge.tasks.get_task(caller, submitted.task.task_id)

The routes in `s3seg.web.routes` call these use cases and translate their results to HTTP.
"""

from s3seg.edge.options import EdgeMemory, EdgeOptions
from s3seg.edge.service import Edge
from s3seg.edge.uploads import Upload

__all__ = ["Edge", "EdgeMemory", "EdgeOptions", "Upload"]
