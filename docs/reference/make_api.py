"""Make api.md from the OpenAPI documents: ``python docs/reference/make_api.py > docs/reference/api.md``."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from s3seg.app import Settings, edge_app, gpu_app

_ENVELOPE = "ApiResponse_"
_Document = Mapping[str, Any]


def page() -> str:
    """A chapter for each service: its operations, then the models of their bodies."""
    with tempfile.TemporaryDirectory() as folder:
        memory = {"object_store": "memory", "task_store": "memory", "task_queue": "memory", "accounts": "memory"}
        settings = Settings(_env_file=None, data_dir=Path(folder), checkpoint="embedded", **memory)  # type: ignore
        edge = asyncio.run(_document(edge_app(settings)))
        gpu = asyncio.run(_document(gpu_app(settings, insecure_no_key=True)))
    return (
        "# HTTP API\n\n"
        "Every route of both services, made from their OpenAPI documents by `docs/reference/make_api.py`. A\n"
        "running service answers the same as JSON at `/openapi.json`. How the routes behave together is\n"
        "described in the [API contract](api-contract.md); what the codes mean, in [error codes](errors.md).\n\n"
        + "\n".join(_chapter("The edge", edge))
        + "\n"
        + "\n".join(_chapter("The gpu service", gpu, known=edge["components"]["schemas"]))
    )


async def _document(app: Any) -> _Document:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return (await client.get("/openapi.json")).json()


def _chapter(title: str, document: _Document, *, known: _Document | None = None) -> Iterator[str]:
    """A chapter, without the models that ``known`` has too."""
    yield f"## {title}\n"
    yield document["info"]["description"] + "\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(method, path, operation)
    yield f"### Models of {title[0].lower()}{title[1:]}\n"
    schemas = document["components"]["schemas"]
    for name in sorted(schemas):
        if not name.startswith(_ENVELOPE) and (known is None or known.get(name) != schemas[name]):
            yield from _model(name, schemas[name])


def _operation(method: str, path: str, operation: _Document) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield ". ".join(filter(None, [operation["summary"], operation.get("description", "").rstrip(".")])) + ".\n"
    if not operation["security"]:
        yield "Open to all: no token or key is needed.\n"
    rows = [
        f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {_text(_about(one))} |"
        for one in operation["parameters"]
    ]
    if "requestBody" in operation:
        ((kind, content),) = operation["requestBody"]["content"].items()
        rows.append(f"| the body | `{kind}` | {_type(content['schema'])} | |")
    if rows:
        yield "| parameter | in | type | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    answers, errors = [], []
    for status, answer in operation["responses"].items():
        codes = re.findall(r"`([A-Z_]+)`: ", answer["description"])
        if codes:
            errors += [f"`{code}` ({status})" for code in codes]
        else:
            answers.append(f"| {status} | {_answer(answer)} | {_text(answer['description'])} |")
    yield "| status | body | |\n|---|---|---|\n" + "\n".join(answers) + "\n"
    yield f"Errors: {', '.join(errors)}.\n"


def _about(parameter: _Document) -> str:
    said = parameter.get("description") or parameter["schema"].get("description", "")
    optional = "" if parameter["required"] else "optional" + (": " if said else "")
    return optional + said


def _answer(answer: _Document) -> str:
    content = answer.get("content", {})
    return ", ".join(_type(body["schema"]) if body.get("schema") else f"`{kind}`" for kind, body in content.items())


def _model(name: str, schema: _Document) -> Iterator[str]:
    yield f"#### {name}\n"
    if "description" in schema:
        yield schema["description"].replace("``", "`") + "\n"
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
    required = schema.get("required", ())
    rows = [
        f"| `{field}{'' if field in required else '?'}` | {_type(about)} | {_text(about.get('description', ''))} |"
        for field, about in schema.get("properties", {}).items()
    ]
    if rows:
        yield "| field | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _type(schema: _Document) -> str:
    """A schema in a few words, with links to the models in it."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "allOf" in schema:
        return " with ".join(_type(part) for part in schema["allOf"])
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    kind = schema.get("type", "any")
    if kind == "array":
        items = schema.get("items") or schema.get("prefixItems", [{}])[0]
        return f"list of {_type(items)}{_between(schema.get('minItems'), schema.get('maxItems'))}"
    if kind == "object" and "properties" in schema:
        return "fields " + ", ".join(f"`{name}`" for name in schema["properties"])
    said = schema.get("format") or ("file" if "contentMediaType" in schema else kind)
    low, high = schema.get("minLength"), schema.get("maxLength")
    if kind in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
    return said + _between(low, high, of=" characters" if kind == "string" else "")


def _link(model: str) -> str:
    """The name of a model; of an envelope, that of what is in its ``data``."""
    inner = re.sub(rf"^{_ENVELOPE}(\w+)_$", r"\1", model)
    return f"[{inner}](#{inner.lower()})"


def _between(low: float | None, high: float | None, *, of: str = "") -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return "" if low in (0, 1) else f", at least {low:g}{of}"
    return f", at most {high:g}{of}" if low is None else f", {low:g} to {high:g}{of}"


def _text(said: str) -> str:
    return re.sub(r"\s+", " ", said).replace("|", "\\|").replace("<", "&lt;").strip()


if __name__ == "__main__":
    print(page(), end="")
