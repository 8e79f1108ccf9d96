"""What every figure shares: the smallest type, panels, titles that say "toy", and how a figure is saved."""

import base64
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from impart_utils.evidence.figure_words import describe, title_of
from impart_utils.sources.features import atomic_path

SMALL = 9  # points: the smallest type in any figure
DPI = 150  # of a saved PNG


class DescribedFigure(Figure):
    """A Figure that hands Jupyter its alternative text beside the picture, where nbconvert looks for it.

    Once it is saved, Jupyter gets the file: drawing the figure again would take as long as saving it did.
    """

    png = None  # what `save_figure` wrote

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {}, {"image/png": {"alt": describe(self)}}

    def _ipython_display_(self):
        if self.png is None or self.stale:  # not saved, or changed since
            raise NotImplementedError("drawn as any figure")  # to IPython: ask your other formatters
        from IPython.display import display

        dots = int.from_bytes(self.png[16:20], "big")  # the width in a PNG's header
        # as wide as if drawn; its height follows, also where a page makes it narrower
        display({"image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}, raw=True,
                metadata={"image/png": {"alt": describe(self), "width": round(dots * self.dpi / DPI)}})


def new_figure(size):
    """A Figure of `size` inches, to be filled."""
    return plt.figure(figsize=size, layout="constrained", FigureClass=DescribedFigure)


def save_figure(fig, folder, name):
    """Write NAME.png (150 dpi) and NAME.svg into `folder`, each to a temporary name first, and close `fig`.

    The same figure gives the same files: no date, and the SVG's ids depend on the name alone. Both carry the
    figure's title and its description in words (`figure_words.describe`), which the book takes from there.
    """
    words = {"Title": title_of(fig) or name.replace("_", " "), "Description": describe(fig)}
    for suffix, metadata in (("png", words), ("svg", {"Date": None, **words})):
        with atomic_path(Path(folder) / f"{name}.{suffix}") as path, plt.rc_context({"svg.hashsalt": name}):
            fig.savefig(path, dpi=DPI, bbox_inches="tight", metadata=metadata)
    plt.close(fig)
    fig.png, fig.stale = (Path(folder) / f"{name}.png").read_bytes(), False


def panel_grid(rows, columns, size, **options):
    """A Figure of `size` inches and its Axes as an array (rows, columns)."""
    fig = new_figure(size)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def clean(ax):
    """Take the frame's upper and right side away; returns `ax`."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def show_picture(ax, picture, title, below):
    """A picture in `ax` with a title above and a text below, without axes."""
    ax.imshow(np.asarray(picture))
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(below, fontsize=SMALL)
    ax.set(xticks=[], yticks=[], anchor="N")


def toy_note(toy):
    """What the title of a figure ends with."""
    return " (toy world)" if toy else ""


def wrapped(text, width, lines):
    """The text in lines of at most `width` characters, cut with an ellipsis after so many `lines`."""
    parts = [part for line in str(text).splitlines() or [""] for part in textwrap.wrap(line, width) or [""]]
    return "\n".join(parts[:lines]) + ("…" if len(parts) > lines else "")
