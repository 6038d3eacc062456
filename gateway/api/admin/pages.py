"""Long lists come in pages; the header Link leads to the next (RFC 8288)."""

from fastapi import Request


def next_page(request: Request, **cursor: str) -> dict[str, str]:
    """The header that leads to the page that begins at ``cursor``."""
    url = request.url.include_query_params(**cursor)
    return {"link": f'<{url.path}?{url.query}>; rel="next"'}
