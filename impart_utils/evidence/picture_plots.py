"""Figures made of pictures: retrieved neighbors, films, grids. Pictures in, Figure out.

Nothing is measured here. `toy=True` says so in the title.
"""

import numpy as np

from impart_utils.evidence.figures import SMALL, new_figure, panel_grid, show_picture, toy_note, wrapped


def picture_grid(pictures, titles=None, columns=4, *, title="", toy=False):
    """Pictures in rows under one title, each with its own above; those are cut after three lines."""
    rows = -(-len(pictures) // columns)
    fig, panels = panel_grid(rows, columns, (1.9 * columns, 2.5 * rows))
    for place, ax in enumerate(panels.ravel()):
        ax.axis("off")
        if place < len(pictures):
            ax.imshow(np.asarray(pictures[place]))
            if titles is not None:
                ax.set_title(wrapped(titles[place], 22, 3), fontsize=SMALL)
    if title or toy:
        fig.suptitle(f"{title}{toy_note(toy)}" if title else toy_note(toy).strip(" ()").capitalize())
    return fig


def neighbors_panel(query, neighbor_pictures, captions, similarities, *, query_title="", toy=False):
    """The query on the left; its neighbors with cosine above and caption below.

    Parameters
    ----------
    query : picture;  neighbor_pictures : list of k pictures;  captions : list of k str
    similarities : array (k,)
    """
    columns = min(4, len(neighbor_pictures))
    rows = -(-len(neighbor_pictures) // columns)
    fig = new_figure((2.1 * (columns + 1), 3.1 * rows + 0.5))
    grid = fig.add_gridspec(rows, columns + 1)
    ax = fig.add_subplot(grid[:, 0])
    show_picture(ax, query, "query", wrapped(query_title, 22, 4))
    found = zip(neighbor_pictures, captions, similarities, strict=True)
    for place, (picture, caption, similarity) in enumerate(found):
        ax = fig.add_subplot(grid[place // columns, place % columns + 1])
        show_picture(ax, picture, f"cosine {similarity:.3f}", wrapped(caption or "(no caption)", 22, 4))
    fig.suptitle(f"A query and its nearest references{toy_note(toy)}")
    return fig


def film_strip(frames, timestamps, title):
    """Frames of one film in the order of time, eight a row, each with its second."""
    columns = min(8, len(frames))
    rows = -(-len(frames) // columns)
    fig, panels = panel_grid(rows, columns, (1.5 * columns, 1.5 * rows + 0.4))
    for place, ax in enumerate(panels.ravel()):
        ax.axis("off")
        if place < len(frames):
            ax.imshow(np.asarray(frames[place]))
            ax.set_title(f"{timestamps[place]:.1f} s", fontsize=SMALL)
    fig.suptitle(wrapped(title, 14 * columns, 2))
    return fig


def query_and_films(query, strips, *, toy=False):
    """A query and the films found for it, best first (Figs. 2 and 3).

    Parameters
    ----------
    query : picture, or str for a text query
    strips : list of (frames, caption), one per film
    """
    columns = max(len(frames) for frames, _ in strips)
    height, width = np.shape(strips[0][0][0])[:2]
    size = (2.6 + 1.3 * columns, max(3.0, (0.65 + 1.3 * height / width) * len(strips)) + 0.4)
    fig = new_figure(size)
    left, right = fig.subfigures(1, 2, width_ratios=[2.6, 1.3 * columns])
    ax = left.subplots()
    if isinstance(query, str):
        ax.text(0.5, 1.0, wrapped(f"“{query}”", 26, 12), ha="center", va="top", fontsize=10, parse_math=False)
        ax.set_title("text query")
        ax.axis("off")
    else:
        show_picture(ax, query, "picture query", "")
    parts = np.ravel(right.subfigures(len(strips), 1))
    for place, (part, (frames, caption)) in enumerate(zip(parts, strips, strict=True), start=1):
        part.suptitle(wrapped(f"{place}. {caption}", 17 * columns, 2), fontsize=SMALL, parse_math=False)
        panels = part.subplots(1, columns, squeeze=False)[0]
        for ax in panels:
            ax.axis("off")
        for ax, frame in zip(panels, frames, strict=False):  # a shorter film leaves panels empty
            ax.imshow(np.asarray(frame))
    fig.suptitle(f"A query and the films found{toy_note(toy)}")
    return fig
