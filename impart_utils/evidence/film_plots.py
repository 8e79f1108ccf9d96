"""Figures of notebooks 06 and 08: how well films, moments and characters are found.

Data in, Figure out; nothing is measured here. `toy=True` says so in the title.
"""

import itertools

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from impart_utils.evidence.figures import SMALL, clean, panel_grid, toy_note, wrapped
from impart_utils.evidence.plots import METHOD_COLORS, POOLING_COLORS, R_IMG, R_TXT

VARIANT_STYLES = {  # color and marker: two signs, so that neither is needed alone
    "CLIP": (METHOD_COLORS["CLIP"], "o"), "Eq. 1 on frames": (METHOD_COLORS["RA-CLIP Vanilla"], "s"),
    "Eq. 1 on films": ("#E69F00", "D"), "Eq. 1 on the query": ("#CC79A7", "^"), "NNN": ("#009E73", "v")}
TRUE_SCENE, CUT = "#E69F00", "0.55"
FLOOR_STYLES = {"random": ("#666666", "//"), "whole": ("#999999", ""), "center": ("#C8C8C8", "..")}


# ---- Films: tables of film_evaluation.py and film_protocols.py -----------------------------------------


def recall_of_variants(table, *, metric="R@1", columns=4, toy):
    """A share such as R@1 per pooling and way to search, a panel per kind of query.

    Parameters
    ----------
    table : DataFrame of `film_evaluation.film_table`;  metric : str, one that is a share
    columns : int, panels side by side

    Returns
    -------
    fig : Figure. A line through a dot is its 95 % interval (bootstrap over movies), the dashed one guessing.
    """
    table = table[table["metric"] == metric]
    queries = list(dict.fromkeys(table["query"]))
    poolings = [name for name in dict.fromkeys(table["pooling"]) if name]
    columns = min(columns, len(queries))
    rows = -(-len(queries) // columns)
    fig, panels = panel_grid(rows, columns, (1.6 + 2.9 * columns, 0.8 + 3.4 * rows), sharex=True, sharey=True)
    for ax, query in zip(panels.ravel(), queries, strict=False):
        part = table[table["query"] == query]
        chance = part.loc[part["variant"] == "chance", "value"]
        if len(chance):
            ax.axvline(100 * chance.iloc[0], color="k", linestyle="--", linewidth=1.2)
        for place, variant in enumerate(VARIANT_STYLES):
            some = part[part["variant"] == variant]
            y = [poolings.index(name) + 0.15 * (place - 2) for name in some["pooling"]]
            _points(ax, 100 * some["value"], y, 100 * some["low"], 100 * some["high"],
                    *VARIANT_STYLES[variant])
        ax.set_title(f"{wrapped(query, 28, 2)}\n{part['n'].iloc[0]:.0f} queries", fontsize=10)
        ax.grid(axis="x", color="0.93")
        clean(ax)
    for ax in panels.ravel()[len(queries):]:
        ax.axis("off")
    panels[0, 0].set(xlim=(-3, 103), yticks=range(len(poolings)), yticklabels=poolings)
    panels[0, 0].invert_yaxis()
    for column in range(columns):  # below the lowest panel, which in the last row may be missing
        lowest = panels[(len(queries) - 1 - column) // columns, column]
        lowest.set_xlabel(f"{metric} (% of queries)")
        lowest.tick_params(labelbottom=True)
    handles = [Line2D([], [], color=color, marker=marker, label=name)
               for name, (color, marker) in VARIANT_STYLES.items() if name in set(table["variant"])]
    handles.append(Line2D([], [], color="k", linestyle="--", label="guessing"))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles) if columns > 2 else 3,
               frameon=False)
    fig.suptitle(f"{metric} with 95 % intervals (bootstrap over movies){toy_note(toy)}")
    return fig


def cost_curve(table, *, metric="R@1", toy):
    """A share such as R@1 against frames per second, a panel per kind of query.

    Parameters
    ----------
    table : DataFrame of `film_protocols.rate_table`

    Returns
    -------
    fig : Figure; bands are 95 % intervals, the figures below the rates frames per film, the cost
    """
    table = table[table["metric"] == metric]
    queries, rates = list(dict.fromkeys(table["query"])), sorted(set(table["fps"]))
    frames = table.groupby("fps")["frames"].first()
    fig, panels = panel_grid(1, len(queries), (1.4 + 4.2 * len(queries), 3.8), sharey=True)
    for ax, query in zip(panels[0], queries, strict=True):
        ways = table[table["query"] == query].groupby("pooling", sort=False)
        for (pooling, part), style in zip(ways, itertools.cycle(("o-", "s--", "^:")), strict=False):
            part, color = part.sort_values("fps"), POOLING_COLORS.get(pooling, "0.3")
            ax.plot(part["fps"], 100 * part["value"], style, color=color, label=pooling)
            ax.fill_between(part["fps"], 100 * part["low"], 100 * part["high"], color=color, alpha=0.14,
                            linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(rates, [f"{rate:g}\n{frames[rate]:.0f}" for rate in rates])
        ax.set(title=f"query: {query}", xlabel="frames per second\nframes encoded per film (mean)")
        ax.grid(color="0.93")
        clean(ax)
    panels[0, 0].set(ylabel=f"{metric} (% of queries)", ylim=(0, None))
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    fig.suptitle(f"What fewer frames cost, with 95 % intervals{toy_note(toy)}")
    return fig


# ---- Moments: scene_windows.py and scene_evaluation.moment_table ---------------------------------------


def moment_curve(found, timestamps, *, truth=None, cuts=(), pictures=(), title="", toy):
    """A query's similarity over a film's time: shots, the true scene, the windows proposed.

    Parameters
    ----------
    found : scene_windows.Found;  timestamps : array (f,), seconds
    truth : (start, end) or None;  cuts : times of shot boundaries
    pictures : list of (seconds, picture), shown above where they are in time;  title : str, the query

    Returns
    -------
    fig : Figure; windows are numbered best first, with their scores
    """
    rows = [1.0] if len(pictures) else []
    fig, panels = panel_grid(len(rows) + 2, 1, (11, 4.4 + len(rows)), sharex=True,
                             height_ratios=[*rows, 2.6, 0.4 + 0.22 * len(found.windows)])
    curve, below = panels[-2:, 0]
    end = max(float(timestamps[-1]), float(found.windows[:, 1].max()))
    if len(pictures):
        _picture_row(panels[0, 0], pictures, end)
    curve.plot(timestamps, found.curve, color=METHOD_COLORS["CLIP"], linewidth=1.6)
    curve.set(ylabel="cosine with the query", xlim=(0, end))
    for place, (start, stop) in enumerate(found.windows):
        color = METHOD_COLORS["CLIP"] if place == 0 else "#8FC6E6"
        below.barh(place, stop - start, left=start, height=0.7, color=color, zorder=3)
    below.set_yticks(range(len(found.windows)), [f"window {place}, score {score:.3f}"
                                                 for place, score in enumerate(found.scores, start=1)])
    below.tick_params(axis="y", labelsize=SMALL, length=0)
    below.set_xlabel("seconds")
    below.invert_yaxis()
    for ax in (curve, below):
        if truth is not None:
            ax.axvspan(*truth, color=TRUE_SCENE, alpha=0.3, linewidth=0)
        for at in cuts:
            ax.axvline(at, color=CUT, linestyle=":", linewidth=1)
        clean(ax)
    handles = [Line2D([], [], color=METHOD_COLORS["CLIP"], label="similarity"),
               Line2D([], [], color=CUT, linestyle=":", label="shot boundary, found"),
               Patch(color=METHOD_COLORS["CLIP"], label="best window"),
               Patch(color="#8FC6E6", label="further windows")]
    handles += [] if truth is None else [Patch(color=TRUE_SCENE, alpha=0.3, label="where it is")]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.suptitle(wrapped(f"{title}{toy_note(toy)}", 100, 2), parse_math=False)  # a query may hold dollars
    return fig


def moment_bars(table, *, toy):
    """R1@IoU and mIoU of the best window beside windows that know nothing, a panel per kind of query.

    Parameters
    ----------
    table : DataFrame of `scene_evaluation.moment_table`, of one or more kinds of query
    """
    queries, metrics = list(dict.fromkeys(table["query"])), list(dict.fromkeys(table["metric"]))
    methods = list(dict.fromkeys(table["method"]))
    styles = {name: FLOOR_STYLES.get(name, (METHOD_COLORS["CLIP"], "")) for name in methods}
    fig, panels = panel_grid(1, len(queries), (1.2 + 3.1 * len(queries), 4.2), sharey=True)
    width = 0.84 / len(methods)
    for ax, query in zip(panels[0], queries, strict=True):
        part = table[table["query"] == query]
        for place, (method, (color, hatch)) in enumerate(styles.items()):
            rows = part[part["method"] == method].set_index("metric").loc[metrics]
            x = np.arange(len(metrics)) + (place - (len(methods) - 1) / 2) * width
            ax.bar(x, 100 * rows["value"], 0.92 * width, color=color, hatch=hatch, edgecolor="white",
                   linewidth=0)
            ax.vlines(x, 100 * rows["low"], 100 * rows["high"], color="0.2", linewidth=1.3)
        ax.set_xticks(range(len(metrics)), [name.replace(" ", "\n") for name in metrics])
        ax.set_title(f"{wrapped(query, 30, 2)}\n{part['n'].iloc[0]:.0f} queries", fontsize=10)
        clean(ax)
    panels[0, 0].set(ylabel="percent", ylim=(0, 100))
    handles = [Patch(facecolor=color, hatch=hatch, edgecolor="white", label=name)
               for name, (color, hatch) in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.suptitle(f"Finding the moment, with 95 % intervals{toy_note(toy)}")
    return fig


# ---- Characters: scene_evaluation.character_table ------------------------------------------------------


def precision_of_characters(table, *, toy):
    """Average precision per character and their mean, beside what a random order gives.

    Parameters
    ----------
    table : DataFrame of `scene_evaluation.character_table`; with a column `searched` a panel per value

    Returns
    -------
    fig : Figure; dashed: expected AP of a random order, dotted: prevalence
    """
    table = table if "searched" in table else table.assign(searched="")
    panels_of = list(dict.fromkeys(table["searched"]))
    kinds, names = list(dict.fromkeys(table["query"])), list(dict.fromkeys(table["character"]))
    colors = dict(zip(kinds, (R_TXT, "#CC79A7", R_IMG, METHOD_COLORS["RA-CLIP Vanilla"], "#009E73"),
                      strict=False))
    size = (max(7.5, 2.6 + 0.95 * len(names)), 0.9 + 2.9 * len(panels_of))
    fig, panels = panel_grid(len(panels_of), 1, size, sharex=True)
    width = 0.84 / len(kinds)
    for ax, searched in zip(panels[:, 0], panels_of, strict=True):
        part = table[table["searched"] == searched]
        for place, kind in enumerate(kinds):
            rows = part[part["query"] == kind].set_index("character").loc[names]
            x = np.arange(len(names)) + (place - (len(kinds) - 1) / 2) * width
            ax.bar(x, rows["value"], 0.92 * width, color=colors.get(kind, "0.5"))
            ax.vlines(x, rows["low"], rows["high"], color="0.2", linewidth=1.3)
        level = part.drop_duplicates("character").set_index("character").loc[names]
        ends = np.arange(len(names)) - 0.45, np.arange(len(names)) + 0.45
        ax.hlines(level["chance"], *ends, color="k", linestyle="--", linewidth=1.3)
        ax.hlines(level["prevalence"], *ends, color="k", linestyle=":", linewidth=1.3)
        ax.set(ylim=(0, 1), ylabel="average precision")
        ax.set_title(f"{searched} ({level['n'].mean():.0f} scenes on average)".strip(), fontsize=10)
        clean(ax)
    panels[-1, 0].set_xticks(range(len(names)), ["mean (mAP)" if name == "all" else wrapped(name, 12, 2)
                                                 for name in names])
    handles = [Patch(color=colors.get(kind, "0.5"), label=kind) for kind in kinds]
    handles += [Line2D([], [], color="k", linestyle="--", label="a random order, expected AP"),
                Line2D([], [], color="k", linestyle=":", label="prevalence")]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle(f"Finding a character's scenes{toy_note(toy)}")
    return fig


# ---- Helpers -------------------------------------------------------------------------------------------


def _points(ax, x, y, low, high, color, marker):
    ax.hlines(y, low, high, color=color, linewidth=1.3, alpha=0.7)
    ax.plot(x, y, marker, color=color, markersize=5, linestyle="none")


def _picture_row(ax, pictures, end):
    """Pictures in data coordinates: each is a box around its time, all of one size."""
    ax.axis("off")
    ax.set(xlim=(0, end), ylim=(0, 1))
    for at, picture in pictures:
        box = ax.inset_axes([at / end - 0.04, 0, 0.08, 1], transform=ax.transAxes)
        box.imshow(np.asarray(picture))
        box.axis("off")
