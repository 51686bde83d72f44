"""Results of the caller: list, read and delete. A result is a task, seen with its masks and labels."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import DeletedResponse
from s3seg.api.edge import ResultDetailResponse, ResultMetadata, ResultsListResponse, ResultsQuery, ResultSummary
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.tasks.model import Task
from s3seg.tasks.records import Cursor
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.etags import ETAG_HEADERS, IF_NONE_MATCH, NOT_MODIFIED, etag_of, not_modified
from s3seg.web.operations import Operation
from s3seg.web.validation import read_query


class ResultRoutes:
    """Everything under /api/v1/results."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/results",
                handler=self.list,
                action=Action.RESULTS,
                summary="List results of every status, newest first",
                query=ResultsQuery,
                responses={200: enveloped(ResultsListResponse, "A page of results", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="contract",
            ),
            Operation(
                method="GET",
                path="/api/v1/results/{result_id}",
                handler=self.get,
                action=Action.RESULTS,
                summary="Get a result in full",
                headers=IF_NONE_MATCH,
                path_formats=ID_FORMATS,
                responses={200: enveloped(ResultDetailResponse, "The result", ETAG_HEADERS), 304: NOT_MODIFIED},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="contract",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/results/{result_id}",
                handler=self.delete,
                action=Action.RESULTS,
                summary="Delete a result and its objects",
                path_formats=ID_FORMATS,
                responses={200: enveloped(DeletedResponse, "Deleted", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def list(self, request: Request) -> Response:
        """Return a page of results, by number or by cursor."""
        query = read_query(request, ResultsQuery)
        page = await self._edge.tasks.list_tasks(
            request.user,
            project_id=query.project_id,
            page=query.page,
            limit=query.limit,
            after=None if query.cursor is None else Cursor.decode(query.cursor),
        )
        response = ResultsListResponse(
            results=[_summary(task) for task in page.tasks],
            total=page.total,
            page=query.page,
            limit=query.limit,
            next_cursor=None if page.next_cursor is None else page.next_cursor.encode(),
        )
        return success(request, response)

    async def get(self, request: Request) -> Response:
        """Return a result, or 304 if the client knows its state."""
        task = await self._edge.tasks.get_task(request.user, request.path_params["result_id"])
        etag = etag_of(task)
        return not_modified(request, etag) or success(request, _result_response(task), headers={"ETag": etag})

    async def delete(self, request: Request) -> Response:
        """Delete a result, cancelling its task if it is unfinished."""
        task = await self._edge.delete_result(request.user, request.path_params["result_id"])
        return success(request, DeletedResponse(id=task.task_id))


def _result_response(task: Task) -> ResultDetailResponse:
    """Empty strings, lists and zeros until the task is done."""
    return ResultDetailResponse(
        id=task.task_id,
        project_id=task.project_id,
        source_image_url=task.source_image_url,
        mask_image_url=task.mask_image_url,
        text_prompt=task.text_prompt,
        labels=list(task.labels),
        metadata=ResultMetadata.model_validate(dict(task.metadata)),
        status=task.status,
        created_at=task.created_at,
        updated_at=task.updated_at,
        expires_at=task.expires_at,
    )


def _summary(task: Task) -> ResultSummary:
    return ResultSummary(
        id=task.task_id,
        source_image_url=task.source_image_url,
        mask_image_url=task.mask_image_url,
        text_prompt=task.text_prompt,
        status=task.status,
        created_at=task.created_at,
        expires_at=task.expires_at,
    )
