"""The unsecured yardstick: a FastAPI route that passes a question to the producer with aiohttp and the answer back."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

PATH = "/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    yield
    await app.state.session.close()


app = FastAPI(lifespan=_lifespan)


@app.post("/proxy")
async def proxy(request: Request) -> Response:
    """Ask the producer about the cédula in the body; no token, no decision, no log."""
    asked = orjson.loads(await request.body())
    async with app.state.session.get(sys.argv[2] + PATH + asked["subject"]["value"]) as answer:
        return Response(await answer.read(), answer.status, media_type="application/json")


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="error", access_log=False)
