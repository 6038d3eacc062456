"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# How the names of pydantic's errors end that say no more than that the value has another form.
_OTHER_FORM = ("_type", "_parsing")


class ApiError(Exception):
    """An error for the client, usually made by a function below; nothing internal goes into its message."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """The response body, also sent as the last event of a stream that fails."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def invalid_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is wrong and will not be right when repeated."""
    return ApiError(400, message, kind="invalid_request_error", code=code, param=param)


def invalid_fields(error: ValidationError, body: object) -> ApiError:
    """400 for the field of `body` that does not validate.

    Where a value may have one of several forms each of them complains: what got furthest was meant.
    """
    found = [(_field(each, body), each) for each in error.errors(include_url=False)]
    path, first = max(found, key=lambda pair: (len(pair[0]), not pair[1]["type"].endswith(_OTHER_FORM)))
    name = ".".join(path)
    if first["type"] == "value_error":
        return invalid_request(str(first["ctx"]["error"]), param=name or None)
    return invalid_request(f"{name or 'body'}: {first['msg']}", param=name or None)


def _field(error: ErrorDetails, body: Any) -> list[str]:
    """Where the client wrote what is wrong, without pydantic's names for the forms that it tried."""
    path = []
    for part in error["loc"]:
        if part in body if isinstance(body, dict) else isinstance(body, list) and isinstance(part, int):
            body = body[part]
            path.append(str(part))
    return [*path, str(error["loc"][-1])] if error["type"] == "missing" else path


def context_too_long(message: str, param: str) -> ApiError:
    """400: prompt and answer do not fit in the model's context."""
    return invalid_request(message, param, "context_length_exceeded")


def model_not_found(model: str) -> ApiError:
    """404: this server does not have that model."""
    message = f"The model {model!r} does not exist"
    return ApiError(404, message, kind="invalid_request_error", code="model_not_found", param="model")


def queue_full(retry_after: float) -> ApiError:
    """503: all places are taken; says when one is expected, in seconds."""
    error = ApiError(503, "The server is at capacity", kind="server_error", code="queue_full")
    error.headers = {
        "retry-after": str(max(1, round(retry_after + 0.5))),
        "retry-after-ms": str(round(retry_after * 1000)),
    }
    return error


def shutting_down() -> ApiError:
    """503: the server is stopping."""
    return ApiError(503, "The server is shutting down", kind="server_error", code="shutting_down")


def model_failed() -> ApiError:
    """500: the model or its device broke."""
    return ApiError(500, "The model failed", kind="server_error", code="model_failed")
