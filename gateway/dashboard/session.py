"""The page's sign-in: an admin key in a cookie that no script can read.

The browser sends the key itself, so a session needs no table, holds at every worker and every gateway, and
ends the moment the key does. HttpOnly keeps it from scripts, SameSite=Strict from other sites. What changes
something must also come from this page's own origin, since another port of this host counts as the same
site: by Sec-Fetch-Site, or else by Origin, as Go's ``http.CrossOriginProtection`` (1.25) decides it.
"""

import base64
import binascii
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.request import bearer
from policies.errors import PermissionDenied

COOKIE = "tidegate_key"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def credential(request: Request) -> str | None:
    """The key that a request carries, as a bearer or in the cookie; None where there is none.

    Raises PermissionDenied where a cookie comes with a change that another origin asks for.
    """
    secret = bearer(request.scope)
    if secret is not None:
        return secret
    sealed = request.cookies.get(COOKIE)
    if sealed is None:
        return None
    if request.method not in _SAFE:
        require_same_origin(request)
    try:
        return base64.urlsafe_b64decode(sealed).decode()
    except (binascii.Error, ValueError):
        return None


def require_same_origin(request: Request) -> None:
    """Raise PermissionDenied unless the request comes from a page of this gateway."""
    site = request.headers.get("sec-fetch-site")
    if site is None:  # a page that isn't served over TLS, or an old browser
        origin = urlsplit(request.headers.get("origin", "")).netloc
        same = bool(origin) and origin == request.headers.get("host")
    else:
        same = site == "same-origin"
    if not same:
        raise PermissionDenied("A change by cookie must come from the gateway's own page.")


def sign_in(response: Response, request: Request, secret: str) -> None:
    """Have the browser keep the key until it is closed."""
    proxied = request.headers.get("x-forwarded-proto", request.url.scheme)
    response.set_cookie(
        COOKIE,
        base64.urlsafe_b64encode(secret.encode()).decode(),
        httponly=True,
        samesite="strict",
        secure=proxied == "https",
    )


def sign_out(response: Response) -> None:
    """Have the browser forget the key."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
