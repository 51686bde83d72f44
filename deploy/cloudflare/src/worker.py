"""The edge service as a Python Worker. Everything is imported here, so that the snapshot of a deployment has it."""

from workers import WorkerEntrypoint, import_from_javascript

from s3seg.app.cloudflare import WorkerEdge, explain
from s3seg.errors import ConfigurationError

_edges: list[WorkerEdge] = []  # one, made by the first request: variables and secrets are not known before


class Default(WorkerEntrypoint):
    """Answers the requests of the Worker."""

    async def fetch(self, request):
        """Answer a request with the edge of this isolate."""
        runtime = import_from_javascript("cloudflare:workers")
        if not _edges:
            try:
                _edges.append(WorkerEdge(runtime.env))
            except ConfigurationError as err:
                return await explain(err, request.js_object, keep_alive=runtime.waitUntil)
        return await _edges[0].fetch(request.js_object, keep_alive=runtime.waitUntil)
