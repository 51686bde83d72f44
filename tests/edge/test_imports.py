"""What an edge imports: it starts where none of the heavy packages is installed, such as in a Cloudflare Worker."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

import s3seg

HEAVY = ("torch", "numpy", "PIL", "cryptography", "httptools", "uvicorn", "boto3", "botocore", "psycopg")
ROOMS = (
    "s3seg.errors",
    "s3seg.tasks",
    "s3seg.api",
    "s3seg.edge",
    "s3seg.web.edge_app",
    "s3seg.web.playground",
    "s3seg.adapters.http_notifier",
    "s3seg.adapters.jwt",
    "s3seg.adapters.memory",
    "s3seg.adapters.supabase",
    "s3seg.app.settings",
    "s3seg.app.parts",
    "s3seg.app.services",
)
NEVER_ON_AN_EDGE = {"s3seg.edge.inspection"}  # what its decoding processes run

START = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
{then}
"""

SERVE = """
import asyncio, httpx
from s3seg.adapters.memory import *
from s3seg.edge import Edge
from s3seg.edge.picture_headers import inspect_header
from s3seg.tasks.limits import Tier
from s3seg.tasks.records import Identity
from s3seg.web.edge_app import build_edge_app
from s3seg.web.playground import playground_routes

USER = Identity(user_id="0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f", tier=Tier.PRO)
PNG = bytes.fromhex({png!r})

class Tokens:
    async def authenticate(self, token): return USER
    async def check(self): pass
    async def aclose(self): pass

async def main():
    tables = MemoryTables()
    edge = Edge(objects=MemoryObjectStore(), tasks=MemoryTaskStore(tables), authenticator=Tokens(),
                limiter=MemoryRateLimiter(), notifier=MemoryNotifier(), inspect=inspect_header)
    app = build_edge_app(edge, more_routes=playground_routes(public_base="http://edge/files"))
    headers = {{"Authorization": "Bearer x"}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge", headers=headers) as http:
        image = (await http.post("/api/v1/upload", files={{"file": PNG}})).json()["data"]
        asked = {{"image_url": image["image_url"], "text_prompt": "cat"}}
        print((await http.post("/api/v1/segment", json=asked)).status_code)
        for path in ("/api/v1/me", "/openapi.json", "/ready", "/"):
            print((await http.get(path)).status_code)

asyncio.run(main())
"""


@cache
def graph() -> grimp.ImportGraph:
    """What happens when a module is imported: without the imports of functions, and those for type checkers."""
    found = grimp.build_graph(
        "s3seg", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    root = Path(s3seg.__file__).parent.parent
    for module in found.modules:
        path = root.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                inside = lines_of_functions(file)
                for other in found.find_modules_directly_imported_by(module):
                    details = found.get_import_details(importer=module, imported=other)
                    if details and all(one["line_number"] in inside for one in details):
                        found.remove_import(importer=module, imported=other)
    return found


def lines_of_functions(file: Path) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


@pytest.mark.parametrize("package", HEAVY)
@pytest.mark.parametrize("room", ROOMS)
def test_no_room_of_the_edge_imports_a_heavy_package_when_it_is_imported(room, package):
    modules = {room, *graph().find_descendants(room)} - NEVER_ON_AN_EDGE
    if package in graph().modules:
        for module in modules:
            assert graph().find_shortest_chain(module, package) is None


def test_the_graph_knows_the_imports_that_it_is_asked_for():
    assert graph().find_shortest_chain("s3seg.images", "PIL")
    assert graph().find_shortest_chain("s3seg.web.server", "httptools")
    assert graph().find_shortest_chain("s3seg.adapters.local_auth", "cryptography")
    assert graph().find_shortest_chain("s3seg.edge.inspection", "numpy")


def test_an_edge_serves_where_the_heavy_packages_are_not_installed():
    from tests.helpers.pictures import encoded

    code = START.format(heavy=HEAVY, then=SERVE.format(png=encoded().hex()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["202", "200", "200", "200", "200"]


def test_the_adapters_for_supabase_check_tokens_of_hs256_without_cryptography():
    code = """
import asyncio, jwt, time
from pydantic import SecretStr
from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.adapters.supabase.auth import SupabaseKeys
from s3seg.adapters.supabase.limiter import SupabaseRateLimiter
secret, now = "k" * 40, int(time.time())
claims = {"sub": "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f", "exp": now + 60, "iat": now, "aud": "authenticated",
          "iss": "https://x.example/auth/v1", "role": "authenticated"}
keys = SupabaseKeys("https://x.example/jwks", secret=SecretStr(secret))
token = jwt.encode(claims, secret, algorithm="HS256")
print(asyncio.run(JwtAuthenticator(keys, issuers=[claims["iss"]]).authenticate(token)).user_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", START.format(heavy=HEAVY, then=code)], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout.strip()) == ("", "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f")
