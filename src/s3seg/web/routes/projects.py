"""Projects of the caller: create, list, read, rename, delete."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import DeletedResponse, PageQuery, ProjectRequest, ProjectResponse, ProjectsListResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.tasks.records import Project
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, mount_path, success
from s3seg.web.operations import Operation
from s3seg.web.validation import read_json, read_query


class ProjectRoutes:
    """Everything under /api/v1/projects."""

    def __init__(self, edge: Edge) -> None:
        self._tasks = edge.tasks

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/projects",
                handler=self.list,
                action=Action.RESULTS,
                summary="List projects, newest first",
                query=PageQuery,
                responses={200: enveloped(ProjectsListResponse, "A page of projects", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/projects",
                handler=self.create,
                action=Action.RESULTS,
                summary="Create a project",
                body=ProjectRequest,
                responses={201: enveloped(ProjectResponse, "Created", {**RATE_HEADERS, "Location": "The project"})},
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="additions",
            ),
            Operation(
                method="GET",
                path="/api/v1/projects/{project_id}",
                handler=self.get,
                action=Action.RESULTS,
                summary="Get a project",
                path_formats=ID_FORMATS,
                responses={200: enveloped(ProjectResponse, "The project", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="PATCH",
                path="/api/v1/projects/{project_id}",
                handler=self.rename,
                action=Action.RESULTS,
                summary="Rename a project",
                body=ProjectRequest,
                path_formats=ID_FORMATS,
                responses={200: enveloped(ProjectResponse, "Renamed", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND", "INVALID_REQUEST"),
                tag="additions",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/projects/{project_id}",
                handler=self.delete,
                action=Action.RESULTS,
                summary="Delete a project; its images and results are kept",
                path_formats=ID_FORMATS,
                responses={200: enveloped(DeletedResponse, "Deleted", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def list(self, request: Request) -> Response:
        """Return a page of projects."""
        query = read_query(request, PageQuery)
        page = await self._tasks.list_projects(request.user, page=query.page, limit=query.limit)
        response = ProjectsListResponse(
            projects=[_project_response(project) for project in page.projects],
            total=page.total,
            page=query.page,
            limit=query.limit,
        )
        return success(request, response)

    async def create(self, request: Request) -> Response:
        """Create a project."""
        body = await read_json(request, ProjectRequest)
        project = await self._tasks.create_project(request.user, body.name)
        headers = {"Location": f"{mount_path(request)}/api/v1/projects/{project.project_id}"}
        return success(request, _project_response(project), status=201, headers=headers)

    async def get(self, request: Request) -> Response:
        """Return a project."""
        project = await self._tasks.get_project(request.user, request.path_params["project_id"])
        return success(request, _project_response(project))

    async def rename(self, request: Request) -> Response:
        """Change a project's name."""
        body = await read_json(request, ProjectRequest)
        project = await self._tasks.rename_project(request.user, request.path_params["project_id"], body.name)
        return success(request, _project_response(project))

    async def delete(self, request: Request) -> Response:
        """Delete a project."""
        project_id = request.path_params["project_id"]
        await self._tasks.delete_project(request.user, project_id)
        return success(request, DeletedResponse(id=project_id))


def _project_response(project: Project) -> ProjectResponse:
    return ProjectResponse(
        id=project.project_id, name=project.name, created_at=project.created_at, updated_at=project.updated_at
    )
