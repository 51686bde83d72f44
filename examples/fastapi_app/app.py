"""An application of FastAPI with both services of s3seg in it, beside routes of its own.

    pip install fastapi uvicorn
    API_SECRET_KEY=$(openssl rand -hex 32) uvicorn --app-dir examples/fastapi_app app:app --port 8000

Users get tokens from ``POST /login`` here, which stands for the sign-in of an application, and call the API below
``/seg``. The gpu service below ``/gpu`` does the work; larger installations run it elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException

from s3seg.app import Parts, Settings, edge_app, gpu_app, local_keys

ADDRESS = os.environ.get("APP_ADDRESS", "http://127.0.0.1:8000")
PEOPLE = {"ann": "rosebud"}  # instead of a database of your users

settings = Settings(public_base_url=f"{ADDRESS}/seg/files", gpu_url=f"{ADDRESS}/gpu", inference="http")
parts = Parts(settings)  # stores and queues, which both services share
edge = edge_app(parts=parts)
gpu = gpu_app(parts=parts)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the lifespans of the mounted services, which Starlette does not do by itself; then close what they share."""
    async with edge.router.lifespan_context(edge), gpu.router.lifespan_context(gpu):
        yield
    await parts.aclose()


app = FastAPI(lifespan=lifespan)
app.mount("/seg", edge)
app.mount("/gpu", gpu)


@app.get("/")
async def home() -> dict[str, str]:
    return {"api": f"{ADDRESS}/seg/openapi.json", "page": f"{ADDRESS}/seg/"}


@app.post("/login")
async def login(name: Annotated[str, Body()], password: Annotated[str, Body()]) -> dict[str, str]:
    """Check the password as your application does, and give a token for the API."""
    if PEOPLE.get(name) != password:
        raise HTTPException(401, "unknown name, or wrong password")
    return {"url": f"{ADDRESS}/seg", "token": local_keys(settings).mint(name, ttl_s=3600)}
