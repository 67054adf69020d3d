"""The page that every report is set in: one HTML file, no network, light and dark, from phone to desk, and on paper.

Its one style sheet and its one script are files of their own beside the templates. They are put into the page, and its content security
policy names them by their hashes: nothing else on it runs or is loaded, whatever the text on it says. All text goes through Jinja's
escaping, and characters that steer a terminal are shown as pictures of themselves. Without script everything is there to be read.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from demeanor.data.rows import writing

METHODS = ("items", "get")  # of a dictionary, that templates may call
PARTS = (("style", "report.css"), ("script", "report.js"))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Pages(Environment):
    """Templates in which a name that is not there is an error, and a dictionary's own keys come before its methods."""

    def __init__(self) -> None:
        super().__init__(
            loader=PackageLoader("demeanor.reports"),
            autoescape=select_autoescape(),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
            finalize=visible,
        )
        self.filters |= {"breakable": breakable, "signed": signed, "percent": percent}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: of a dictionary the item, else one of the few methods that templates call; `.clear` is never the method."""
        if not isinstance(obj, Mapping):
            return super().getattr(obj, attribute)
        if attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute) if attribute in METHODS else self.undefined(obj=obj, name=attribute)


def visible(value: Any) -> Any:
    """Text with pictures of its control characters in their place; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _CONTROL.sub(lambda found: "\u2421" if found[0] == "\x7f" else chr(0x2400 + ord(found[0])), value)


def breakable(name: object) -> Markup:
    """A name that may break after its underscores, so that it does not push a column off the page."""
    return Markup("_<wbr>").join(str(name).split("_"))


def signed(value: float, places: int = 2) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+.{places}f}".replace("-", "−")


def percent(share: float, places: int = 0) -> str:
    """A share in percent; one that is small but not nothing keeps a decimal."""
    return f"{100 * share:.{1 if 0 < share < 0.01 else places}f} %"


def write_page(path: Path, template: str, contents: Sequence[tuple[str, str]], **content: Any) -> None:
    """Render a template of this package into `path`, whole or not at all; `contents` are the page's parts, each an anchor and a heading."""
    pages = Pages()
    parts = {kind: _part(pages, name) for kind, name in PARTS}
    allowed = "; ".join(f"{kind}-src '{_digest(text)}'" for kind, text in parts.items())
    security = f"default-src 'none'; {allowed}; img-src data:; base-uri 'none'; form-action 'none'"
    html = pages.get_template(template).render(
        parts={kind: Markup(text) for kind, text in parts.items()},  # noqa: S704
        security=Markup(security),  # noqa: S704
        contents=contents,
        **content,
    )
    with writing(path) as file:
        file.write(html.encode(errors="replace").decode())  # half of a surrogate pair cannot be written


def _part(pages: Environment, name: str) -> str:
    assert pages.loader is not None
    return pages.loader.get_source(pages, name)[0]


def _digest(text: str) -> str:
    """As a content security policy names what it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
