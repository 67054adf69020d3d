"""The dashboard as one ASGI app, to be served alone or mounted beside something else: which address is answered by what."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demeanor.dashboard import adapting as adapting_pages
from demeanor.dashboard import conversations, labels, months, now, people, queue, sign_in
from demeanor.dashboard.adapting import Adapting
from demeanor.dashboard.handling import Asked, Desk, NotFoundError, Page, endpoint
from demeanor.dashboard.months import Counted
from demeanor.review.accounts import Role
from demeanor.review.store import Store


def app(store: Store, audit: Path | None = None, reports: Path | None = None, adapting: Adapting | None = None) -> Starlette:
    """The dashboard's pages; whoever opened the store closes it.

    Args:
        store: The review store: its replies, items, labels, accounts and versions.
        audit: The audit log whose monthly counts are shown.
        reports: A folder whose HTML reports are listed and shown.
        adapting: What learns from labels, with the model that reads replies; without it, that is done on the command line.
    """
    desk = Desk(store, reports, Counted(audit) if audit is not None else None, adapting)

    def shown(path: str, page: Page, role: Role | None = "reviewer") -> Route:
        return Route(path, endpoint(desk, page, role), methods=["GET"])

    def sent(path: str, page: Page, role: Role | None = "reviewer") -> Route:
        return Route(path, endpoint(desk, page, role), methods=["POST"])

    def static(request: Request) -> Response:
        return desk.look.file(request.path_params["name"])

    return Starlette(
        routes=[
            Route("/static/{hash}/{name}", static, methods=["GET"]),
            shown("/sign-in", sign_in.shown, None),
            sent("/sign-in", sign_in.sent, None),
            sent("/sign-out", sign_in.out),
            shown("/", now.shown),
            shown("/labels", labels.shown),
            shown("/labels/{rule:path}", labels.rule),
            sent("/labels/{rule:path}", labels.set_threshold, "admin"),
            sent("/adapting", adapting_pages.begin, "admin"),
            shown("/adapting/{number}", adapting_pages.shown, "admin"),
            sent("/adapting/{number}", adapting_pages.promoted, "admin"),
            shown("/versions/{number}", labels.version),
            sent("/versions/back", labels.back, "admin"),
            shown("/reports", months.shown),
            shown("/reports/{name}", months.file),
            shown("/queue", queue.shown),
            sent("/queue/release", queue.released),
            sent("/queue/{item}", queue.answered),
            sent("/queue/{item}/score", queue.scored),
            shown("/conversations", conversations.shown),
            shown("/conversations/{key}", conversations.conversation),
            shown("/replies/{reply}", conversations.reply),
            shown("/accounts", people.shown, "admin"),
            sent("/accounts", people.sent, "admin"),
            sent("/accounts/change", people.changed, "admin"),
            Route("/{path:path}", endpoint(desk, _nothing_here), methods=["GET", "POST"]),
        ]
    )


def _nothing_here(asked: Asked) -> Response:
    raise NotFoundError(f"there is no page {asked.here}")
