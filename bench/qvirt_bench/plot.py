"""The door to matplotlib: plots as SVG, equal for equal numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl

from qvirt_bench.figures import Plot

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "qvirt"
mpl.rcParams["svg.fonttype"] = "none"

#: Points of a curve that are shown one by one.
_FEW: Final = 50


def draw(plot: Plot, file: Path) -> None:
    """Write one plot."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    try:
        for curve in plot.curves:
            xs, ys = zip(*curve.points, strict=True)
            axes.plot(xs, ys, marker="o" if len(xs) <= _FEW else "", label=curve.name)
        for x in plot.marks:
            axes.axvline(x, color="grey", linestyle=":", linewidth=0.8)
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y, ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        figure.savefig(file, metadata={"Date": None})
    finally:
        pyplot.close(figure)
