"""From the edge's own values to the wire models of the contract."""

from __future__ import annotations

from s3seg.api.additions import LimitsResponse, MeResponse, ProjectResponse, ProjectsListResponse
from s3seg.api.edge import (
    ResultDetailResponse,
    ResultMetadata,
    ResultsListResponse,
    ResultsQuery,
    ResultSummary,
    TaskResponse,
    UploadResponse,
)
from s3seg.tasks.limits import RateTable
from s3seg.tasks.model import Task, TaskStatus
from s3seg.tasks.records import Account, Project, ProjectPage, StoredImage, TaskPage


def upload_response(image: StoredImage) -> UploadResponse:
    """Of a registered image."""
    return UploadResponse(
        image_id=image.image_id,
        image_url=image.image_url,
        size_bytes=image.size_bytes,
        content_type=image.content_type,
    )


def task_response(task: Task) -> TaskResponse:
    """Of a task in any state."""
    return TaskResponse(
        task_id=task.task_id,
        status=task.status,
        result_id=task.task_id if task.status == TaskStatus.DONE else None,
        error_message=task.error_message if task.status == TaskStatus.ERROR else None,
        created_at=task.created_at,
        updated_at=task.updated_at,
    )


def results_response(page: TaskPage, query: ResultsQuery) -> ResultsListResponse:
    """Of a page of tasks, and the query that asked for it."""
    return ResultsListResponse(
        results=[_summary(task) for task in page.tasks],
        total=page.total,
        page=query.page,
        limit=query.limit,
        next_cursor=None if page.next_cursor is None else page.next_cursor.encode(),
    )


def result_response(task: Task) -> ResultDetailResponse:
    """Of a task in any state; empty strings, lists and zeros until it is done."""
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
    )


def me_response(account: Account, rates: RateTable) -> MeResponse:
    """Of an account."""
    return MeResponse(
        user_id=account.user_id,
        tier=account.tier,
        credits=account.credits,
        limits=LimitsResponse.of(dict(rates[account.tier])),
    )


def project_response(project: Project) -> ProjectResponse:
    """Of a project."""
    return ProjectResponse(
        id=project.project_id, name=project.name, created_at=project.created_at, updated_at=project.updated_at
    )


def projects_response(page: ProjectPage, *, number: int, limit: int) -> ProjectsListResponse:
    """Of a page of projects."""
    return ProjectsListResponse(
        projects=[project_response(project) for project in page.projects],
        total=page.total,
        page=number,
        limit=limit,
    )


def _summary(task: Task) -> ResultSummary:
    return ResultSummary(
        id=task.task_id,
        source_image_url=task.source_image_url,
        mask_image_url=task.mask_image_url,
        text_prompt=task.text_prompt,
        status=task.status,
        created_at=task.created_at,
    )
