"""Errors as RFC 9457 problem documents."""

import math

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from warmrack_store.errors import PROBLEM_TYPE, BadRequest, Defect, NotFound, WarmrackError
from warmrack_store.records import bad_request

_RETRY_AFTER_SECONDS = 5.0
log = structlog.get_logger()


def problem(error: WarmrackError) -> JSONResponse:
    """The answer for an error; retryable ones say when to come back."""
    headers = {}
    if error.retryable:
        seconds = error.retry_after_seconds or _RETRY_AFTER_SECONDS
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return JSONResponse(error.to_problem(), error.status, headers, media_type=PROBLEM_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the app leave it as a problem document."""

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WarmrackError)
        return problem(error)

    async def shape(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return problem(bad_request(error.errors()))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind = NotFound if error.status_code == 404 else BadRequest
        answer = problem(kind(f"{request.method} {request.url.path}: {error.detail}"))
        answer.status_code = error.status_code
        return answer

    async def defect(request: Request, error: Exception) -> JSONResponse:
        log.error(
            "A request failed.", action="request-defect", path=request.url.path, exc_info=error
        )
        return problem(Defect(f"{type(error).__name__} in {request.method} {request.url.path}"))

    app.add_exception_handler(WarmrackError, ours)
    app.add_exception_handler(RequestValidationError, shape)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)
