"""The layer curve as a figure: how well a trait is told apart at each layer, with the layers that were chosen.

Drawn alike in a notebook (`plot_layers`) and in the report of an extraction. Plotly is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from demeanor.vectors.persona_vector import PersonaVector

DOTS = "#808080"  # a mid-grey, legible on light and dark grounds


def layer_figure(vectors: Mapping[str, PersonaVector]) -> go.Figure:
    """Cross-validated AUROC by layer, one line a trait; dots mark the layers that a vector is read at.

    A vector without a curve has no line, and its name in the legend says so.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, vector in vectors.items():
        curve = vector.curve()
        chosen = [layer for layer in vector.layers if layer in curve]
        label = name if curve else f"{name} (no layer curve)"
        figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines", name=label, showlegend=True)
        figure.add_scatter(
            x=chosen, y=[curve[layer] for layer in chosen], mode="markers", showlegend=False, marker={"size": 8, "color": DOTS},
            hovertemplate=f"{name}: chosen layer %{{x}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="layer (dots: chosen)")
    figure.update_yaxes(title="AUROC, cross-validated")
    return figure
