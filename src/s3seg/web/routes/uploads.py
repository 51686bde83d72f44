"""Images of the caller: upload and delete."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import DeletedResponse
from s3seg.api.edge import UploadRequest, UploadResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.multipart import read_upload
from s3seg.web.operations import Operation


class UploadRoutes:
    """POST /api/v1/upload and DELETE /api/v1/images/{image_id}."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="POST",
                path="/api/v1/upload",
                handler=self.upload,
                action=Action.UPLOAD,
                summary="Upload a picture",
                description="PNG, JPEG or WebP of at most 10 MB; the type is decided from the bytes.",
                body=UploadRequest,
                body_type="multipart/form-data",
                files=("file",),
                responses={200: enveloped(UploadResponse, "The image is stored", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST", "FILE_TOO_LARGE"),
                tag="contract",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/images/{image_id}",
                handler=self.delete,
                action=Action.RESULTS,
                summary="Delete an image; its results are kept",
                path_formats=ID_FORMATS,
                responses={200: enveloped(DeletedResponse, "Deleted", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def upload(self, request: Request) -> Response:
        """Store the picture of a multipart body, which is read once there is room for it."""
        image = await self._edge.upload(request.user, lambda: read_upload(request))
        response = UploadResponse(
            image_id=image.image_id,
            image_url=image.image_url,
            size_bytes=image.size_bytes,
            content_type=image.content_type,
        )
        return success(request, response)

    async def delete(self, request: Request) -> Response:
        """Delete an image and cancel its unfinished tasks."""
        image = await self._edge.delete_image(request.user, request.path_params["image_id"])
        return success(request, DeletedResponse(id=image.image_id))
