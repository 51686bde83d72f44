"""The Worker of deploy/cloudflare with routes that let the tests use its object store and see its memory.

It runs inside the Worker: the module ``worker`` beside it is the deployed one.
"""

import base64
import json

import js
import pyodide_js
from worker import Default as Deployed
from workers import Response, import_from_javascript

from s3seg.adapters.cloudflare.objects import R2BindingObjectStore
from s3seg.errors import S3segError


class Default(Deployed):
    """Answers requests for ``/__test/{operation}`` itself; their header ``x-arguments`` has the arguments."""

    async def fetch(self, request):
        """Answer a request."""
        path = js.URL.new(request.url).pathname
        if not path.startswith("/__test/"):
            return await super().fetch(request)
        if path == "/__test/memory":
            return Response(str(pyodide_js._module.HEAP8.length))
        arguments = json.loads(base64.b64decode(request.headers["x-arguments"]))
        env = import_from_javascript("cloudflare:workers").env
        store = R2BindingObjectStore(env.BUCKET, public_base=env.S3SEG_PUBLIC_BASE_URL)
        try:
            return await getattr(self, path.removeprefix("/__test/"))(store, request, **arguments)
        except S3segError as err:
            return Response(json.dumps({"error": type(err).__name__, "message": str(err)}), status=409)

    async def put(self, store, request, key):
        body = (await request.js_object.arrayBuffer()).to_bytes()
        return described([await store.put(key, body)])

    async def get(self, store, request, key):
        return Response(await store.get(key))

    async def stream(self, store, request, key):
        stream = await store.stream(key)
        chunks = [chunk async for chunk in stream.chunks]
        lengths = {"x-lengths": json.dumps([len(chunk) for chunk in chunks])}
        return Response(b"".join(chunks), headers={**lengths, "x-info": json.dumps(fields(stream.info))})

    async def delete(self, store, request, key):
        await store.delete(key)
        return described([])

    async def list(self, store, request, prefix):
        return described([info async for info in store.list(prefix)])

    async def call(self, store, request, name, arguments):
        answer = getattr(store, name)(**arguments)
        return Response(json.dumps(await answer if hasattr(answer, "__await__") else answer))


def described(infos):
    return Response(json.dumps([fields(info) for info in infos]))


def fields(info):
    return {
        "key": info.key,
        "size_bytes": info.size_bytes,
        "content_type": info.content_type,
        "modified_at": info.modified_at.isoformat(),
    }
