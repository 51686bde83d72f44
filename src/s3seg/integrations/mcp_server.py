"""A server of the Model Context Protocol (MCP): tools with which an agent finds, counts, cuts out and draws things.

Needs the package ``mcp``: pip install 's3seg[mcp]'.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio.to_thread
import PIL.Image
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from s3seg import __version__
from s3seg.errors import InvalidRequestError, S3segError
from s3seg.integrations.picture_access import PictureAccess
from s3seg.results import draw, masks
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.limits import MAX_PROMPT_CHARS, MAX_PROMPTS
from s3seg.tasks.tiles import MIN_TILE, Tile
from s3seg.web.keys import KEY_HEADER, ApiKeys

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter

_T = TypeVar("_T")
_MAX_SOURCE_CHARACTERS = 90_000_000
_MAX_LISTED = 500  # pictures
_MAX_INSTANCES = 100  # of a prompt in an answer
_MAX_RLE_CHARACTERS = 200_000  # of all masks in an answer
_MAX_CUT_OUTS = 8
_CUT_OUT_SIDE = 400  # pixels; eight of them stay below what agents' applications accept
_DRAWING_SIDE = 1280
_MAX_WAITING = 32
_MAX_BODY_BYTES = 16 * 2**20  # a picture of 10 MB as a data: URL fits

_INSTRUCTIONS = """Finds things in pictures from their names, with SAM 3, and returns exact masks, boxes and counts.
Name one kind of thing in a few words for each prompt ("red car", "person with a hat"), not a question or a sentence.
Coordinates are pixels of the picture, x to the right and y down, from its top left corner.
If a prompt finds nothing, try a simpler or more common word, or a lower threshold; a hint in the answer may say why.
If things are small in a large picture, or there are more than 200 of them, set tile."""

PictureArgument = Annotated[
    str,
    Field(
        max_length=_MAX_SOURCE_CHARACTERS,
        description="The picture: a path as list_pictures returns it, or a data: URL "
        "(data:image/png;base64,...); an http(s) URL if the server allows them.",
    ),
]
PromptsArgument = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]],
    Field(
        min_length=1,
        max_length=MAX_PROMPTS,
        description='What to look for, one kind of thing for each prompt: ["tree", "red car"].',
    ),
]
ThresholdArgument = Annotated[
    float | None,
    Field(ge=0, le=1, description="Keep instances that score above this; lower finds more. By default the model's."),
]
TileArgument = Annotated[
    Tile | None,
    Field(
        description="Look also into overlapping tiles of the picture, for things that are small in it, or very many. "
        f"The side of a tile in pixels, {MIN_TILE} or more: about 20 times the size of the smallest things, such as "
        '500 for things of 25 pixels; or "auto" for the side of the model\'s input. Each tile takes as long as a whole '
        "picture, and half the side makes four times as many tiles, so leave it out at first. By default only the "
        "whole picture is looked at, and at most 200 instances of a prompt are found."
    ),
]


class InstanceInfo(BaseModel):
    """One instance."""

    number: int = Field(description="Its number for this prompt, from 1, the best score first.")
    score: float = Field(description="How sure the model is, 0 to 1.")
    box: list[float] = Field(description="x1, y1, x2, y2 in pixels, tight around the mask.")
    area: int = Field(description="Pixels in the mask.")
    rle: str | None = Field(None, description="Its mask as compressed COCO RLE counts, if masks were asked for.")


class PromptInfo(BaseModel):
    """What one prompt found."""

    prompt: str
    count: int = Field(description="How many instances were found.")
    instances: list[InstanceInfo] = Field(description=f"The best {_MAX_INSTANCES} of them.")
    hint: str | None = Field(None, description="Why a prompt may find nothing, or how to improve it.")


class PictureInfo(BaseModel):
    """What was found in a picture."""

    width: int
    height: int
    results: list[PromptInfo]
    note: str | None = Field(None, description="What was left out of this answer, if anything.")


def build_server(load: Callable[[], Segmenter | Client], access: PictureAccess) -> MCPServer:
    """Build the server.

    Args:
        load: Returns what segments the pictures, on this machine or on an s3seg service. Called once, when a tool first
            needs it, because applications do not wait long for a server to start.
        access: Which pictures may be read.

    Returns:
        The server; ``run("stdio")`` serves standard input and output, ``streamable_http_app()`` HTTP.
    """
    server = MCPServer("s3seg", title="s3seg", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")
    tool = functools.partial(_add_tool, server, anyio.CapacityLimiter(1))

    model = functools.cache(load)

    def found(image: str, prompts: Sequence[str], threshold: float | None, tile: Tile | None) -> list[Segmentation]:
        return model().segment(access.load(image), list(prompts), threshold=threshold, tile=tile)

    def list_pictures() -> list[str]:
        return access.names(limit=_MAX_LISTED)

    def segment(
        image: PictureArgument,
        prompts: PromptsArgument,
        threshold: ThresholdArgument = None,
        masks: Annotated[bool, Field(description="Return the masks too, as COCO RLE; they are long.")] = False,
        tile: TileArgument = None,
    ) -> PictureInfo:
        return _describe(found(image, prompts, threshold, tile), with_masks=masks)

    def count(
        image: PictureArgument,
        prompts: PromptsArgument,
        threshold: ThresholdArgument = None,
        tile: TileArgument = None,
    ) -> dict[str, int]:
        return {result.prompt: len(result) for result in found(image, prompts, threshold, tile)}

    def draw_instances(
        image: PictureArgument,
        prompts: PromptsArgument,
        threshold: ThresholdArgument = None,
        tile: TileArgument = None,
    ) -> Image:
        results = found(image, prompts, threshold, tile)
        drawing = draw.overlay(results[0].image, results)
        drawing.thumbnail((_DRAWING_SIDE, _DRAWING_SIDE), PIL.Image.Resampling.LANCZOS)
        return _encoded(drawing, "jpeg", quality=88)

    def cut_out(
        image: PictureArgument,
        prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="What to cut out.")],
        number: Annotated[
            int | None, Field(ge=1, description="Only the instance with this number; by default all, the best first.")
        ] = None,
        threshold: ThresholdArgument = None,
        tile: TileArgument = None,
    ) -> list[Image]:
        (result,) = found(image, [prompt], threshold, tile)
        if number is not None and number > len(result):
            raise InvalidRequestError(
                f"there is no instance {number} of {prompt!r}: {len(result)} were found; leave number out for all"
            )
        chosen = result[:_MAX_CUT_OUTS] if number is None else result[number - 1 : number]
        pieces = chosen.crops()
        for piece in pieces:
            piece.thumbnail((_CUT_OUT_SIDE, _CUT_OUT_SIDE), PIL.Image.Resampling.LANCZOS)
        return [_encoded(piece, "png") for piece in pieces]

    tool(list_pictures, f"List the pictures that can be named here, at most {_MAX_LISTED} paths.")
    tool(
        segment,
        "Find every instance of each prompt in a picture: how many, where (boxes in pixels), how large, how sure. "
        "Use this to locate or measure things; use count for numbers only, and draw to look at the result.",
    )
    tool(count, "Count the instances of each prompt in a picture. Returns a number for each prompt.")
    tool(
        draw_instances,
        "Draw the instances of the prompts on the picture, with outlines, names and scores, and return it as a JPEG "
        f"of at most {_DRAWING_SIDE} pixels a side. Use this to check a result by eye, or to show it.",
        name="draw",
    )
    tool(
        cut_out,
        "Cut the instances of a prompt out of the picture: PNGs with a transparent background, the best first, at "
        f"most {_MAX_CUT_OUTS}, each at most {_CUT_OUT_SIDE} pixels a side. Returns nothing if nothing was found.",
    )
    return server


def http_app(server: MCPServer, *, host: str, keys: Sequence[str]) -> ASGIApp:
    """Return the server as an application that answers at /mcp, for whoever sends a key.

    On loopback, requests that a web page sent to another name are refused.

    Args:
        server: The server.
        host: Address that it will listen on.
        keys: Accepted keys, in ``Authorization: Bearer`` or ``X-API-Key``; with none, all requests are answered.
    """
    accepted = ApiKeys(keys)
    app = server.streamable_http_app(host=host, stateless_http=True, max_request_body_size=_MAX_BODY_BYTES)

    async def with_key(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                accepted.check(Request(scope), ("Authorization", KEY_HEADER))
            except S3segError as err:
                response = PlainTextResponse(str(err), 401, {"WWW-Authenticate": "Bearer"})
                await response(scope, receive, send)
                return
        await app(scope, receive, send)

    return with_key


def _add_tool(
    server: MCPServer, limiter: anyio.CapacityLimiter, work: Callable[..., Any], description: str, name: str = ""
) -> None:
    """Register a tool that runs on another thread, one call at a time, and tells the agent what was wrong."""

    @functools.wraps(work)
    async def call(**arguments: Any) -> Any:
        if limiter.statistics().tasks_waiting >= _MAX_WAITING:
            raise ToolError("too many calls are waiting; try again in a few seconds")
        return await _explained(anyio.to_thread.run_sync(functools.partial(work, **arguments), limiter=limiter))

    server.add_tool(
        call,
        name=name or work.__name__,
        description=description,
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


async def _explained(work: Awaitable[_T]) -> _T:
    try:
        return await work
    except S3segError as err:
        raise ToolError(str(err)) from err


def _describe(results: Sequence[Segmentation], *, with_masks: bool) -> PictureInfo:
    height, width = results[0].size
    room = _MAX_RLE_CHARACTERS if with_masks else 0
    described: list[PromptInfo] = []
    left_out = 0
    for result in results:
        instances: list[InstanceInfo] = []
        for number, instance in enumerate(result[:_MAX_INSTANCES], start=1):
            text = instance.rle.counts
            fits = with_masks and len(text) <= room
            room -= len(text) if fits else 0
            left_out += with_masks and not fits
            instances.append(
                InstanceInfo(
                    number=number,
                    score=round(instance.score, 4),
                    box=list(masks.box(instance.rle)),
                    area=instance.area,
                    rle=text if fits else None,
                )
            )
        described.append(PromptInfo(prompt=result.prompt, count=len(result), instances=instances, hint=result.hint))
    notes = []
    if any(info.count > _MAX_INSTANCES for info in described):
        notes.append(f"only the best {_MAX_INSTANCES} instances of each prompt are listed")
    if left_out:
        notes.append(f"{left_out} masks were left out, because the answer would be too long")
    return PictureInfo(width=width, height=height, results=described, note="; ".join(notes) or None)


def _encoded(picture: PIL.Image.Image, format_: str, **options: Any) -> Image:
    buffer = io.BytesIO()
    picture.save(buffer, format=format_, **options)
    return Image(data=buffer.getvalue(), format=format_)
