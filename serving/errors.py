"""Errors as answers: a status, one line under `error`, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from core.errors import UserError
from serving.engine import GoneError
from serving.orders import FullError, LostError
from serving.service import LateError

LARGEST = 1_500_000  # bytes of a request and of a prediction: Vertex AI's limit


class LargeError(HTTPException):
    """A body is larger than LARGEST."""

    def __init__(self, detail: str) -> None:
        super().__init__(413, detail)


class ForeignError(Exception):
    """A page of another site asks."""


STATUS: dict[type[Exception], int] = {
    ForeignError: 403,
    UserError: 422,
    FullError: 429,
    LostError: 500,
    GoneError: 503,
    LateError: 504,
}


def status_of(error: Exception) -> int:
    """The status of an answer."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def response(error: Exception) -> JSONResponse:
    """The answer to a request that failed."""
    status = status_of(error)
    seconds = error.seconds if isinstance(error, FullError) else 1
    headers = {"Retry-After": str(seconds)} if status in (429, 503) else {}
    return _answer(str(error), status, headers)


def _answer(text: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One line, as short and as printable as every error: it may repeat what was sent."""
    return JSONResponse({"error": str(UserError(text))}, status, headers)


def install(app: FastAPI) -> None:
    """Lets `app` answer with them."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return response(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":  # its place is a number of characters
            return _answer(f"body: not valid JSON at character {first['loc'][-1]}", 422)
        if first["loc"] == ("body",) and isinstance(error.body, str | bytes):
            return _answer("body: not read as JSON; send it with Content-Type: application/json", 422)
        key = ".".join(str(part) for part in first["loc"] if part != "body")
        return _answer(f"{key or 'body'}: {first['msg'].removeprefix('Value error, ')}", 422)

    async def plain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AnyHTTPException)
        return _answer(str(error.detail), error.status_code, error.headers)

    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return _answer("internal error; the log says more", 500)

    for kind in STATUS:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(AnyHTTPException, plain)
    app.add_exception_handler(Exception, unknown)
