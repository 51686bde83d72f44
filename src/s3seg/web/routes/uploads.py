"""Images of the caller: upload and delete."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import (
    BeginUploadRequest,
    BeginUploadResponse,
    CompleteUploadRequest,
    DeletedResponse,
)
from s3seg.api.edge import UploadRequest, UploadResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.tasks.records import StoredImage
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.multipart import read_upload
from s3seg.web.operations import Operation
from s3seg.web.validation import read_json


class UploadRoutes:
    """POST /api/v1/upload, uploads straight to the storage, and DELETE /api/v1/images/{image_id}."""

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
                method="POST",
                path="/api/v1/uploads",
                handler=self.begin,
                action=Action.UPLOAD,
                summary="Begin an upload straight to the storage",
                description="404 where the storage takes none: then use POST /api/v1/upload.",
                body=BeginUploadRequest,
                responses={201: enveloped(BeginUploadResponse, "Send the picture there", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST", "FILE_TOO_LARGE", "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/uploads/{upload_id}/complete",
                handler=self.complete,
                action=Action.RESULTS,
                summary="Complete an upload that was sent straight to the storage; safe to repeat",
                body=CompleteUploadRequest,
                responses={200: enveloped(UploadResponse, "The image is stored", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST", "FILE_TOO_LARGE", "NOT_FOUND"),
                tag="additions",
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
        return _stored(request, await self._edge.upload(request.user, lambda: read_upload(request)))

    async def begin(self, request: Request) -> Response:
        """Sign a request for one picture."""
        body = await read_json(request, BeginUploadRequest)
        upload = await self._edge.begin_upload(request.user, content_type=body.content_type, size_bytes=body.size_bytes)
        response = BeginUploadResponse(
            upload_id=upload.upload_id,
            url=upload.put.url,
            headers=dict(upload.put.headers),
            expires_at=upload.expires_at,
        )
        return success(request, response, status=201)

    async def complete(self, request: Request) -> Response:
        """Inspect and register what was sent."""
        body = await read_json(request, CompleteUploadRequest)
        upload_id = request.path_params["upload_id"]
        image = await self._edge.complete_upload(
            request.user, upload_id, project_id=body.project_id, expires_in_s=body.expires_in_s
        )
        return _stored(request, image)

    async def delete(self, request: Request) -> Response:
        """Delete an image and cancel its unfinished tasks."""
        image = await self._edge.delete_image(request.user, request.path_params["image_id"])
        return success(request, DeletedResponse(id=image.image_id))


def _stored(request: Request, image: StoredImage) -> Response:
    response = UploadResponse(
        image_id=image.image_id,
        image_url=image.image_url,
        size_bytes=image.size_bytes,
        content_type=image.content_type,
        expires_at=image.expires_at,
    )
    return success(request, response)
