"""Concepts of the caller: create, list, read, delete."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import ConceptRequest, ConceptResponse, ConceptsListResponse, DeletedResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, mount_path, success
from s3seg.web.operations import Operation
from s3seg.web.validation import read_json


class ConceptRoutes:
    """Everything under /api/v1/concepts."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/concepts",
                handler=self.list,
                action=Action.RESULTS,
                summary="List concepts, newest first",
                responses={200: enveloped(ConceptsListResponse, "All concepts", RATE_HEADERS)},
                errors=USER_ERRORS,
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/concepts",
                handler=self.create,
                action=Action.RESULTS,
                summary="Keep examples of what to find, to be used in /segment",
                body=ConceptRequest,
                responses={201: enveloped(ConceptResponse, "Created", {**RATE_HEADERS, "Location": "The concept"})},
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="additions",
            ),
            Operation(
                method="GET",
                path="/api/v1/concepts/{concept_id}",
                handler=self.get,
                action=Action.RESULTS,
                summary="Get a concept",
                path_formats=ID_FORMATS,
                responses={200: enveloped(ConceptResponse, "The concept", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/concepts/{concept_id}",
                handler=self.delete,
                action=Action.RESULTS,
                summary="Delete a concept; tasks that use it are processed all the same",
                path_formats=ID_FORMATS,
                responses={200: enveloped(DeletedResponse, "Deleted", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def list(self, request: Request) -> Response:
        """Return all concepts."""
        concepts = await self._edge.tasks.list_concepts(request.user)
        return success(request, ConceptsListResponse(concepts=[ConceptResponse.of(one) for one in concepts]))

    async def create(self, request: Request) -> Response:
        """Create a concept."""
        body = await read_json(request, ConceptRequest)
        concept = await self._edge.create_concept(request.user, body)
        headers = {"Location": f"{mount_path(request)}/api/v1/concepts/{concept.concept_id}"}
        return success(request, ConceptResponse.of(concept), status=201, headers=headers)

    async def get(self, request: Request) -> Response:
        """Return a concept."""
        concept = await self._edge.tasks.get_concept(request.user, request.path_params["concept_id"])
        return success(request, ConceptResponse.of(concept))

    async def delete(self, request: Request) -> Response:
        """Delete a concept."""
        concept_id = request.path_params["concept_id"]
        await self._edge.tasks.delete_concept(request.user, concept_id)
        return success(request, DeletedResponse(id=concept_id))
