"""The page that every report is set in: one HTML file, no network, light and dark, from phone to desk.

Figures are Plotly's; its script is embedded once. Their paper is transparent and their ink a mid-grey, so that they
are legible on both grounds. All text goes through Jinja's escaping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from demeanor.data.rows import writing

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK = "#808080"
GRID = "rgba(128,128,128,0.25)"
METHODS = ("items", "get")  # of a dictionary, that templates may call
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")


def figure_html(figure: go.Figure, height: int, label: str) -> Markup:
    """A Plotly figure as a piece of the page, without its script; `label` is what a screen reader says."""
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 12},
        colorway=list(COLOURS),
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    name = "figure-" + hashlib.sha256(label.encode(errors="replace") + figure.to_json().encode()).hexdigest()[:12]
    body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True})
    return Markup('<figure role="img" aria-label="{}">').format(label) + Markup(body) + Markup("</figure>")  # noqa: S704


class _Pages(Environment):
    """Templates in which a name that is not there is an error, and a dictionary's own keys come before its methods."""

    def __init__(self) -> None:
        super().__init__(
            loader=PackageLoader("demeanor.reports"),
            autoescape=select_autoescape(),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: of a dictionary the item, else one of the few methods that templates call; `.clear` is never the method."""
        if not isinstance(obj, Mapping):
            return super().getattr(obj, attribute)
        if attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute) if attribute in METHODS else self.undefined(obj=obj, name=attribute)


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of this package into `path`, whole or not at all."""
    from plotly.offline import get_plotlyjs

    html = _Pages().get_template(template).render(plotly=Markup(get_plotlyjs()), **content)  # noqa: S704
    with writing(path) as file:
        file.write(html.encode(errors="replace").decode())  # half of a surrogate pair cannot be written


def heat(z: float) -> str:
    """Background of a token that pushes a trait by `z`: one hue for each direction, stronger the more it pushes."""
    strength = min(abs(z) / 4, 1) * 0.6
    return f"rgba({'68,119,170' if z > 0 else '238,102,119'},{strength:.2f})"
