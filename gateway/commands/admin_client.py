"""The admin API as the terminal commands use it; a failure is one line and exit code 1."""

from typing import Annotated, Any, NoReturn

import httpx
import orjson
import typer

AdminUrl = Annotated[str, typer.Option("--url", envvar="TIDEGATE_URL", help="The gateway's address.")]
AdminKey = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="TIDEGATE_ADMIN_KEY", help="An admin key.", show_default=False),
]
DEFAULT_URL = "http://127.0.0.1:8080"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class AdminClient:
    """Calls the admin API of one gateway."""

    def __init__(self, url: str, admin_key: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {require(admin_key)}"}

    def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """The answer's JSON."""
        return self._call("GET", path, params=params)

    def get_text(self, path: str, params: dict[str, str]) -> str:
        """The answer as it is."""
        return self._send("GET", path, params=params).text

    def get_pages(self, path: str, params: dict[str, str]) -> list[Any]:
        """The items of a list that comes in pages."""
        response = self._send("GET", path, params=params)
        items: list[Any] = self._json(response)
        while following := response.links.get("next"):
            response = self._send("GET", following["url"])
            items += self._json(response)
        return items

    def get_state(self, path: str) -> tuple[Any, str] | None:
        """What is at ``path`` with its ETag; None where there is nothing."""
        response = self._send("GET", path, allowed=(404,))
        return None if response.is_error else (self._json(response), response.headers["etag"])

    def post(self, path: str, body: dict[str, Any], params: dict[str, str] | None = None) -> Any:
        """Send ``body``; the answer's JSON."""
        return self._call("POST", path, json=body, params=params)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Create what is at ``path``; the answer's JSON."""
        return self._call("PUT", path, json=body, headers={"if-none-match": "*"})

    def patch(self, path: str, body: dict[str, Any], etag: str = "*") -> Any:
        """Change what is at ``path``, if it is as ``etag`` says; the answer's JSON."""
        return self._call("PATCH", path, json=body, headers={"if-match": etag})

    def delete(self, path: str) -> None:
        """Delete what is at ``path``, whatever its state."""
        self._call("DELETE", path, headers={"if-match": "*"})

    @staticmethod
    def print_json(value: Any) -> None:
        """Print ``value`` as indented JSON."""
        typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = self._send(method, path, **options)
        return self._json(response) if response.content else None

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
        **options: Any,
    ) -> httpx.Response:
        sent = {**self._headers, **(headers or {})}
        try:
            response = httpx.request(method, self._url + path, headers=sent, **options)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            fail(f"can't reach {self._url}: {error}")
        if not response.is_success and response.status_code not in allowed:
            fail(_detail(response))
        return response

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            fail(f"{self._url} doesn't answer as a gateway does")


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def require(admin_key: str | None) -> str:
    """The key, or an end with a word on where to find it."""
    if not admin_key:
        fail("no admin key: give --admin-key or set TIDEGATE_ADMIN_KEY (it was printed at the first start)")
    if not admin_key.isascii():
        fail("the admin key can't be sent: it has characters beyond ASCII")
    return admin_key


def fail(message: str) -> NoReturn:
    """Say what went wrong, and end with exit code 1."""
    typer.echo(f"tidegate: {message}", err=True)
    raise typer.Exit(1)
