"""One function a figure: data in, Axes (or Figure, where there are several panels) out.

A method has one color everywhere (Okabe & Ito's palette, which color-blind readers can tell apart).
Nothing is measured here. `toy=True` says so in the title.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from impart_utils.evidence.claims import base_dataset
from impart_utils.evidence.figures import (
    SMALL,
    clean,
    new_figure,
    panel_grid,
    save_figure,  # noqa: F401  notebooks call it as plots.save_figure
    toy_note,
    wrapped,
)
from impart_utils.evidence.intervals import mean_interval
from impart_utils.evidence.picture_plots import (  # noqa: F401  notebooks call these as plots.NAME too
    film_strip,
    neighbors_panel,
    picture_grid,
    query_and_films,
)
from impart_utils.sources.datasets import TITLES

METHOD_COLORS = {"CLIP": "#0072B2", "RA-CLIP Vanilla": "#D55E00", "RA-CLIP (RAM)": "#CC79A7",
                 "RA-CLIP (RAM, normalized)": "#009E73", "random neighbors": "#999999"}
R_IMG, R_TXT = "#E69F00", "#56B4E9"  # retrieved images and their texts
# plain CLIP's ways from frames to a film in blues, Vanilla's in its own color
POOLING_COLORS = {"mean_raw": "#0072B2", "mean_unit": "#4A9CCB", "max": "#8FC6E6",
                  "top_mean": "#2B8FB3", "query_scored": "#CDE6F5",
                  "Eq. 1 on frames, mean_unit": METHOD_COLORS["RA-CLIP Vanilla"]}
VARIANTS = {"none": ("not normalized", METHOD_COLORS["RA-CLIP (RAM)"], ""),
            "branch": ("each branch to unit length", METHOD_COLORS["RA-CLIP (RAM, normalized)"], ""),
            "sum": ("sum to unit length", METHOD_COLORS["RA-CLIP (RAM, normalized)"], "//")}


# ---- Accuracies --------------------------------------------------------------------------------


def accuracy_bars(table, paper=None, *, toy, ax=None):
    """Accuracy per data set and method (Table 1 as a figure).

    Parameters
    ----------
    table : DataFrame in the schema of table1.csv; several rows of one method are its trainings
    paper : DataFrame of `claims.read_paper_values`, optional: a dashed line marks the paper's value
    toy : bool;  ax : Axes, optional

    Returns
    -------
    ax : Axes
    """
    sets = list(dict.fromkeys(table["dataset"]))
    methods = [name for name in METHOD_COLORS if name in set(table["method"])]
    ax = _axes(ax, (2.2 + 0.5 * len(sets) * (len(methods) + 1), 4.6))
    width, printed = 0.84 / len(methods), 0
    for group, dataset in enumerate(sets):
        for place, method in enumerate(methods):
            x = group + (place - (len(methods) - 1) / 2) * width
            rows = table[(table["dataset"] == dataset) & (table["method"] == method)]
            if len(rows):
                _bar(ax, x, 0.92 * width, rows, METHOD_COLORS[method])
            value = _paper_accuracy(paper, dataset, method)
            if value is not None:
                ax.plot([x - width / 2, x + width / 2], [value, value], "k--", linewidth=1.6, zorder=5)
                printed += 1
    counts = table.groupby("dataset", sort=False)["n"].first()
    ax.set_xticks(range(len(sets)), [f"{dataset_title(name)}\nn = {int(counts[name])}" for name in sets])
    _percent(ax, "Zero-shot accuracy", toy)
    handles = [Patch(color=METHOD_COLORS[name], label=name) for name in methods]
    handles += _whisker_handles(ax, table, ["dataset", "method"])
    handles += [Line2D([], [], color="k", linestyle="--", label="the paper's value")] if printed else []
    _legend(ax, handles)
    return ax


def normalization_bars(table, paper=None, *, toy):
    """RAM's accuracy by normalization (Fig. 1): one panel per scale of the inputs, a dot per training.

    Parameters
    ----------
    table : DataFrame in the schema of figure1.csv, with variant "none", "branch" or "sum"
    paper : DataFrame of `claims.read_paper_values`, optional: a dashed line marks Table 1's RA-CLIP over all
        variants of a data set, for which of them it is isn't stated

    Returns
    -------
    fig : Figure
    """
    scales = [name for name in ("raw", "unit") if name in set(table["scale"])]
    sets = list(dict.fromkeys(table["dataset"]))
    fig, panels = panel_grid(1, len(scales), (3 + 1.7 * len(sets) * len(scales), 4.4), sharey=True)
    printed = {name: _paper_accuracy(paper, name, "RA-CLIP (RAM)") for name in sets}
    for ax, scale in zip(panels[0], scales, strict=True):
        part = table[table["scale"] == scale]
        for group, dataset in enumerate(sets):
            for place, (variant, (_, color, hatch)) in enumerate(VARIANTS.items()):
                rows = part[(part["dataset"] == dataset) & (part["variant"] == variant)]
                if len(rows):
                    _bar(ax, group + 0.28 * (place - 1), 0.26, rows, color, hatch)
            if printed[dataset] is not None:
                ax.plot([group - 0.44, group + 0.44], 2 * [printed[dataset]], "k--", linewidth=1.6, zorder=5)
        ax.set_xticks(range(len(sets)), [dataset_title(name) for name in sets])
        _percent(ax, f"RAM on {scale} vectors", toy)
    panels[0, -1].label_outer()
    shown = [Patch(facecolor=color, edgecolor="white", hatch=hatch, label=label)
             for variant, (label, color, hatch) in VARIANTS.items() if variant in set(table["variant"])]
    if any(value is not None for value in printed.values()):
        shown.append(Line2D([], [], color="k", linestyle="--", label="Table 1; which variant\nis not stated"))
    _legend(panels[0, -1], shown + _whisker_handles(panels[0, -1], table, ["dataset", "variant", "scale"]))
    return fig


def score_terms(class_names, terms, *, truth=None, toy, ax=None):
    """The terms of Eq. 1 stacked to each class's score, for one picture.

    Parameters
    ----------
    class_names : list of c str;  terms : dict, name -> array (c,), in the order query, image, text
    truth : str, optional: the right class, marked
    """
    ax = _axes(ax, (7.5, 0.9 + 0.45 * len(class_names)))
    colors = (METHOD_COLORS["CLIP"], R_IMG, R_TXT)
    above, below, rows = np.zeros(len(class_names)), np.zeros(len(class_names)), np.arange(len(class_names))
    for (name, values), color in zip(terms.items(), colors, strict=False):
        values = np.asarray(values, dtype=float)
        ax.barh(rows, values, left=np.where(values >= 0, above, below), color=color, label=name, height=0.7)
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
    ax.plot(above + below, rows, "kD", markersize=6, linestyle="none", label="sum: score of v′")
    ax.set_yticks(rows, [wrapped(name, 28, 2) + (" (right)" if name == truth else "")
                         for name in class_names])
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set(xlabel="score: dot product with the class vector", title=f"Who votes for what{toy_note(toy)}")
    _legend(ax)
    return clean(ax)


def table(frame, caption, *, toy, digits=3):
    """A table with its caption, for a notebook: a pandas Styler, numbers with `digits` decimals, NaN as –.

    Parameters
    ----------
    frame : DataFrame;  caption : str;  toy : bool
    """
    above = {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"}
    styled = frame.style.format(precision=digits, na_rep="–").set_caption(f"{caption}{toy_note(toy)}")
    return styled.set_table_styles([above])


# ---- Training and similarities -----------------------------------------------------------------


def training_probe(history, chance, *, toy=True, ax=None):
    """Zero-shot accuracy of a CLIP in training against the pictures it has seen.

    Parameters
    ----------
    history : DataFrame or list of dict with views and accuracy (a fraction; NaN where it wasn't measured)
    chance : float, a fraction
    """
    ax = _axes(ax, (7, 4.2))
    measured = pd.DataFrame(history).dropna(subset=["accuracy"])
    shares = 100 * measured["accuracy"]
    ax.plot(measured["views"], shares, "o-", color=METHOD_COLORS["CLIP"], label="tiny CLIP")
    ax.axhline(100 * chance, color="k", linestyle="--", linewidth=1.3, label=f"chance ({100 * chance:.1f} %)")
    ax.set_xlabel("pictures seen in training")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    _percent(ax, "A CLIP comes to be", toy, label="zero-shot accuracy, held-out pictures (%)")
    _legend(ax)
    return ax


def similarity_histogram(similarities, *, toy, bins=40, ax=None):
    """Distributions of cosines over each other: dict, name -> array of any length."""
    ax = _axes(ax, (7, 3.8))
    flat = {name: np.ravel(values) for name, values in similarities.items()}
    colors = (METHOD_COLORS["CLIP"], R_IMG, R_TXT, "#000000")
    edges = np.histogram_bin_edges(np.concatenate(list(flat.values())), bins)
    for (name, values), color in zip(flat.items(), colors, strict=False):
        style = {"weights": np.full(len(values), 100 / len(values)), "color": color}
        if len(flat) <= 2:  # the areas of three blend to grey
            ax.hist(values, edges, histtype="stepfilled", alpha=0.45, **style)
        ax.hist(values, edges, histtype="step", linewidth=1.6, label=name, **style)
    ax.set(xlabel="cosine similarity", ylabel="share of the pairs (%)", title=f"Cosines{toy_note(toy)}")
    _legend(ax)
    return clean(ax)


def vectors_2d(v, neighbors_image=None, neighbors_text=None, augmented=None, class_vectors=None, *,
               title="Vectors in the plane", query_name="v, the query", toy=False, ax=None):
    """Eq. 1 as arrows in the plane.

    Parameters
    ----------
    v : array (2,);  neighbors_image, neighbors_text : arrays (k, 2), optional
    augmented : array (2,), v′, optional;  class_vectors : dict, name -> array (2,), optional
    """
    ax = _axes(ax, (6.6, 4.4))
    named = {name: np.asarray(vector, dtype=float) for name, vector in (class_vectors or {}).items()}
    groups = [(query_name, v, METHOD_COLORS["CLIP"], 0.013),
              ("retrieved images", neighbors_image, R_IMG, 0.008),
              ("their texts", neighbors_text, R_TXT, 0.008),
              ("v′, augmented", augmented, METHOD_COLORS["RA-CLIP Vanilla"], 0.013),
              ("classes", np.array(list(named.values())) if named else None, "0.35", 0.006)]
    groups = [(label, np.atleast_2d(block), *style) for label, block, *style in groups if block is not None]
    for _, block, color, width in groups:
        start = np.zeros(len(block))
        ax.quiver(start, start, block[:, 0], block[:, 1], angles="xy", scale_units="xy", scale=1, color=color,
                  width=width, zorder=3)
    for name, tip in named.items():
        ax.annotate(wrapped(name, 24, 2), tip, xytext=6 * tip / np.linalg.norm(tip),
                    textcoords="offset points", ha="left" if tip[0] >= 0 else "right",
                    va="bottom" if tip[1] >= 0 else "top", fontsize=SMALL, zorder=4,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    points = np.vstack([np.zeros((1, 2)), *(block for _, block, _, _ in groups)])
    pad = 0.12 * np.ptp(points, axis=0).max()
    corners = np.vstack([points.min(axis=0) - pad, points.max(axis=0) + pad])
    ax.plot(*corners.T, linestyle="none")  # draws nothing, but makes room: the limits don't see arrows
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="first coordinate", ylabel="second coordinate", title=f"{title}{toy_note(toy)}")
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    _legend(ax, [Line2D([], [], color=color, linewidth=3, label=label) for label, _, color, _ in groups])
    return clean(ax)


# ---- Helpers -----------------------------------------------------------------------------------


def _axes(ax, size):
    return new_figure(size).subplots() if ax is None else ax


def _bar(ax, x, width, rows, color, hatch=""):
    """One bar with an interval: of its accuracy, or of the mean of several trainings, with a dot for each."""
    shares = 100 * rows["accuracy"].to_numpy(float)
    ax.bar(x, shares.mean(), width, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    if len(rows) == 1:
        low, high = 100 * rows[["low", "high"]].to_numpy(float)[0]
    else:
        low, high = mean_interval(shares)
        places = x + width * np.linspace(-0.3, 0.3, len(shares))
        ax.plot(places, shares, "o", color="0.1", markersize=3.5, zorder=4)
    if np.isfinite([low, high]).all():
        ax.vlines(x, low, high, color="0.2", linewidth=1.5, zorder=4)
        ax.hlines([low, high], x - width / 4, x + width / 4, color="0.2", linewidth=1.5, zorder=4)
    light = np.dot(to_rgb(color), (0.299, 0.587, 0.114)) > 0.40
    ax.text(x, 1.5, f"{shares.mean():.1f}", rotation=90, ha="center", va="bottom", fontsize=SMALL,
            zorder=6, color="black" if light else "white",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 2} if hatch else None)


def _whisker_handles(ax, table, keys):
    sizes = table.groupby(keys).size()
    handles, wilson = [], set(table.get("average", ["micro"])) == {"micro"}  # else a bootstrap in each class
    if (sizes == 1).any():
        handles.append(_whisker(ax, f"95 % interval{' (Wilson)' if wilson else ''}"))
    if (sizes > 1).any():
        handles += [Line2D([], [], color="0.1", marker="o", markersize=3.5, linestyle="none",
                           label="one training each"),
                    _whisker(ax, "95 % interval of the\ntrainings' mean (t)")]
    return handles


def _whisker(ax, label):
    """An interval's sign for the legend; nothing is drawn in `ax`."""
    return ax.errorbar(np.nan, np.nan, yerr=1, fmt="none", color="0.2", capsize=4, label=label)


def _paper_accuracy(paper, dataset, method):
    if paper is None:
        return None
    rows = paper[(paper["source"] == "paper") & (paper["item"] == "Table 1") & (paper["method"] == method)
                 & (paper["dataset"] == base_dataset(dataset))]
    return float(rows["value"].iloc[0]) if len(rows) else None


def _percent(ax, title, toy, label="accuracy (%)"):
    ax.set(ylim=(0, 100), ylabel=label, title=f"{title}{toy_note(toy)}")
    clean(ax)


def dataset_title(dataset):
    """A data set's name for titles; of a pack it says so."""
    name = TITLES.get(base_dataset(dataset), base_dataset(dataset))
    return f"{name} (pack)" if dataset.startswith("pack:") else name


def _legend(ax, handles=None):
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
