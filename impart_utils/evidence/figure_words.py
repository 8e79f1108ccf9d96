"""A figure in words, for whoever can't see it: read off its titles, axes and legends, typed nowhere twice."""

import re
import textwrap

import numpy as np
from matplotlib.collections import FillBetweenPolyCollection, PathCollection, QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.patches import Polygon, StepPatch
from matplotlib.quiver import Quiver

LONGEST = 1200  # characters; a screen reader has no way to skip within an alternative text
NAMES = 12      # names on an axis that are read out


def title_of(fig):
    """The figure's title on one line: its own, or those of its panels; "" where there is none."""
    titles = [_line(ax.get_title()) for ax in fig.axes if not _is_picture(ax)]
    return _line(fig.get_suptitle()) or "; ".join(dict.fromkeys(filter(None, titles)))


def describe(fig):
    """What a figure shows: title, then per panel what is drawn, the axes with range or names, and the legend.

    Parameters
    ----------
    fig : Figure

    Returns
    -------
    text : str on one line, at most `LONGEST` characters; the book's alternative text for the picture
    """
    parts = " ".join(part[:1].upper() + part[1:] + ("" if part.endswith((".", "?", "!")) else ".")
                     for part in _figure(fig) if part)
    return textwrap.shorten(parts, LONGEST, placeholder=" …")


def _figure(fig):
    """Parts of the description of a Figure or SubFigure."""
    yield _line(fig.get_suptitle())
    own = [ax for ax in fig.axes if ax.get_figure(root=False) is fig]
    pictures = [" – ".join(filter(None, map(_line, (ax.get_title(), ax.get_xlabel()))))
                for ax in own if _is_picture(ax)]
    if pictures:
        told = "; ".join(filter(None, pictures))
        yield f"{len(pictures)} picture{'s' * (len(pictures) > 1)}" + (f": {told}" if told else "")
    yield from (_panel(ax) for ax in own if not _is_picture(ax))
    for part in fig.subfigs:
        yield from _figure(part)
    yield from map(_legend, fig.legends)


def _panel(ax):
    if hasattr(ax, "_colorbar"):
        return f"colors: {_axis(ax.yaxis) or _axis(ax.xaxis)}"
    parts = [_line(ax.get_title()), ", ".join(_drawn(ax))]
    if ax.axison:
        axes = {"x axis": _axis(ax.xaxis), "y axis": _axis(ax.yaxis)}
        parts += [f"{name}: {words}" for name, words in axes.items() if words]
    else:
        parts += [_line(text.get_text()) for text in ax.texts]
    parts.append(_legend(ax.get_legend()) if ax.get_legend() else "")
    return "; ".join(filter(None, parts))


def _drawn(ax):
    """Kinds of what is in a panel: "bars", "lines", …"""
    lines = [line for line in ax.lines if line.get_transform() == ax.transData]  # not those across the panel
    kinds = {"bars": any(isinstance(some, BarContainer) and len(some) for some in ax.containers),
             "points with intervals": any(isinstance(some, ErrorbarContainer) for some in ax.containers),
             "lines": any(len(line.get_xdata()) > 1 and line.get_linestyle() != "None" for line in lines),
             "a histogram": any(isinstance(some, (StepPatch, Polygon)) for some in ax.patches),
             "points": any(isinstance(some, PathCollection) for some in ax.collections)
             or any(line.get_linestyle() == "None" for line in lines),
             "arrows": any(isinstance(some, Quiver) for some in ax.collections),
             "a map of colors": any(isinstance(some, QuadMesh) for some in ax.collections),
             "bands": any(isinstance(some, FillBetweenPolyCollection) for some in ax.collections)}
    return [name for name, there in kinds.items() if there]


def _axis(axis):
    """An axis: its label, and the names on it or its range; "" where it has neither label nor names."""
    label = _line(axis.get_label().get_text())
    ticks = [_line(tick.get_text()) for tick in axis.get_majorticklabels()]
    names = [text for text in ticks if text]
    if any(re.search(r"[^\W\d_]{2,}", re.sub(r"\$.*?\$", "", text)) for text in names):  # words, not numbers
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        return f"{label}{': ' if label else ''}{', '.join(names[:NAMES])}{more}"
    low, high = np.clip(sorted(axis.get_data_interval()), *sorted(axis.get_view_interval()))
    return f"{label}, {low:.3g} to {high:.3g}" if label else ""


def _legend(legend):
    return f"legend: {', '.join(_line(text.get_text()) for text in legend.get_texts())}"


def _is_picture(ax):
    """A picture, and not a table of colors: it has no ticks."""
    return bool(ax.images) and (not ax.axison or len(ax.get_xticks()) == 0)


def _line(text):
    return " ".join(str(text).split())

