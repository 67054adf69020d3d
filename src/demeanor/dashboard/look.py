"""How a page is made and sent: the reports' templates, style and figures, and headers that let nothing else run or load.

Style sheets and the one script are files of their own, under addresses that hold their hashes, so that a browser keeps them for good and
the content security policy needs no exception. Pages themselves are never kept: they hold what people wrote.
"""

from __future__ import annotations

import datetime
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from demeanor.reports.page import Pages

SECURITY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": SECURITY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser would not say where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC = (
    ("report.css", "demeanor.reports", "templates/report.css", "text/css"),
    ("dashboard.css", "demeanor.dashboard", "static/dashboard.css", "text/css"),
    ("dashboard.js", "demeanor.dashboard", "static/dashboard.js", "text/javascript"),
)


class Look:
    """The templates, and the files that pages load."""

    def __init__(self) -> None:
        self._pages = Pages()
        self._pages.loader = ChoiceLoader([PackageLoader("demeanor.dashboard"), PackageLoader("demeanor.reports")])
        self._pages.filters |= {"when": when, "count": count}
        self._files = {name: (files(package).joinpath(path).read_bytes(), kind) for name, package, path, kind in STATIC}

    def page(self, template: str, status: int = 200, **content: Any) -> HTMLResponse:
        """A page, with the headers of all pages."""
        html = self._pages.get_template(template).render(static=self.address, **content)
        return HTMLResponse(html.encode(errors="replace"), status, HEADERS)  # half of a surrogate pair cannot be sent

    def address(self, name: str) -> str:
        """Where a file is served, below the dashboard: by its hash, as it may be kept for good."""
        return f"/static/{hashlib.sha256(self._files[name][0]).hexdigest()[:16]}/{name}"

    def file(self, name: str) -> Response:
        """A file that pages load; a 404 where there is none."""
        if name not in self._files:
            return Response("no such file\n", 404, HEADERS, "text/plain")
        body, kind = self._files[name]
        return Response(body, 200, {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}, kind)


def when(at: float, form: str = "%d %b %Y, %H:%M UTC") -> Markup:
    """A time for people, with what machines read of it."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(timespec="seconds"), moment.strftime(form))


def count(number: int) -> str:
    """A number with commas between its thousands."""
    return f"{number:,}"
