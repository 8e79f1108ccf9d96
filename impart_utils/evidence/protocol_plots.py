"""One figure: the same features under every protocol.

Data in, Figure out; nothing is measured here. `toy=True` says so in the title.
"""

from matplotlib.lines import Line2D

from impart_utils.evidence.claims import OPENAI, base_dataset
from impart_utils.evidence.figures import clean, panel_grid, toy_note, wrapped
from impart_utils.evidence.plots import METHOD_COLORS, dataset_title

AVERAGE_STYLES = {"micro": ("o", METHOD_COLORS["CLIP"], -0.13),
                  "mean per class": ("D", METHOD_COLORS["RA-CLIP Vanilla"], 0.13)}


def protocol_dots(table, published=None, *, toy):
    """Accuracy by prompts, names and average, a panel per data set and split.

    Parameters
    ----------
    table : DataFrame of `protocols.protocol_table`, of one or several data sets
    published : DataFrame of `protocols.published`, optional: a cross where a published value has the same
        weights (OpenAI's), data set, split, prompts, names and average
    toy : bool

    Returns
    -------
    fig : Figure
    """
    panels = list(dict.fromkeys(zip(table["dataset"], table["split"], strict=True)))
    labels = list(dict.fromkeys(_label(row) for row in table.itertuples()))
    fig, axes = panel_grid(1, len(panels), (1.8 + 3 * len(panels), 1.7 + 0.55 * len(labels)), sharey=True)
    for ax, (dataset, split) in zip(axes[0], panels, strict=True):
        for row in table[(table["dataset"] == dataset) & (table["split"] == split)].itertuples():
            marker, color, shift = AVERAGE_STYLES[row.average]
            place, others = labels.index(_label(row)) + shift, _published(published, row)
            ax.hlines(place, 100 * row.low, 100 * row.high, color=color)
            ax.plot(100 * row.accuracy, place, marker, markersize=5, color=color)
            ax.plot(others, [place] * len(others), "kx", zorder=5)
        n = table[(table["dataset"] == dataset) & (table["split"] == split)]["n"].iloc[0]
        title = dataset_title(dataset) + ("" if split == "test" else f", {split}")
        ax.set(title=f"{title}\nn = {n}", xlabel="accuracy (%)")
        ax.grid(axis="y", color="0.92")
        clean(ax)
    axes[0, 0].set_yticks(range(len(labels)), [wrapped(label, 28, 2) for label in labels])
    axes[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    handles = [Line2D([], [], color=color, marker=marker, label=name)
               for name, (marker, color, _) in AVERAGE_STYLES.items()]
    handles += [] if published is None else [Line2D([], [], color="k", marker="x", linestyle="none",
                                                    label="published, same protocol")]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.suptitle(f"One set of features, with 95 % intervals{toy_note(toy)}")
    return fig


def _label(row):
    return f"{row.prompts.split(' (')[0]}, {row.names} names"


def _published(published, row):
    """The published percentages under a row's protocol; VTAB's for those drawn by its rule too."""
    if published is None or row.weights not in OPENAI:
        return []
    same = published["dataset"].eq(base_dataset(row.dataset))
    same &= published["split"].eq(row.split.split(" (")[0])
    for name in ("prompts", "names", "average"):
        same &= published[name].eq(getattr(row, name))
    return list(published["value"][same])
