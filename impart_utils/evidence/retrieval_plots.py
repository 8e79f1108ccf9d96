"""Figures of notebooks 04 and 07: is it retrieval, on which settings does it hang, what comes with it?

Data in, Figure out; nothing is measured here. `toy=True` says so in the title.
"""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from impart_utils.evidence.figures import SMALL, clean, panel_grid, toy_note, wrapped
from impart_utils.evidence.plots import METHOD_COLORS, R_IMG, R_TXT, dataset_title

CONTROL_COLOR, RIVAL_COLOR = METHOD_COLORS["random neighbors"], "#222222"
KIND_COLORS = {"method": METHOD_COLORS["RA-CLIP Vanilla"], "rival": RIVAL_COLOR, "control": CONTROL_COLOR}


def against_clip(table, *, margin=None, lowest=-12.0, toy):
    """Each method's difference to CLIP on the same pictures, a panel per data set.

    Parameters
    ----------
    table : DataFrame with dataset, method, kind ("method", "rival" or "control"), n, b (only CLIP right),
        c (only the method right)
    margin : float, optional: points that count as equal, as a band
    lowest : float, points; what lies below is named at the left edge instead of drawn to scale

    Returns
    -------
    fig : Figure. The line through a dot is the 95 % interval of the difference of paired shares (Wald).
    """
    sets, methods = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["method"]))
    fig, panels = panel_grid(1, len(sets), (2.4 + 3.2 * len(sets), 1.5 + 0.27 * len(methods)), sharey=True)
    for ax, dataset in zip(panels[0], sets, strict=True):
        if margin is not None:
            ax.axvspan(-margin, margin, color="0.93", zorder=0)
        ax.axvline(0, color=METHOD_COLORS["CLIP"], linestyle="-.", linewidth=1.3, zorder=1)
        for row in table[table["dataset"] == dataset].itertuples():
            points = 100 * (row.c - row.b) / row.n
            half = 196 * np.sqrt(max(row.b + row.c - (row.c - row.b) ** 2 / row.n, 0)) / row.n
            place, color = methods.index(row.method), KIND_COLORS[row.kind]
            if points < lowest:
                ax.plot(lowest, place, "<", color=color)
                ax.text(lowest + 0.5, place, f"{points:.0f}", va="center", fontsize=SMALL, color=color)
            else:
                ax.errorbar(points, place, xerr=half, fmt="o", markersize=5, capsize=2, color=color)
        ax.set(title=dataset_title(dataset), xlabel="points against CLIP")
        ax.grid(axis="y", color="0.92")
        clean(ax)
    panels[0, 0].set_yticks(range(len(methods)), methods)
    panels[0, 0].invert_yaxis()
    words = {"method": "Eq. 1", "rival": "other methods on the same pairs", "control": "controls"}
    handles = [Line2D([], [], color=KIND_COLORS[kind], marker="o", label=words[kind])
               for kind in KIND_COLORS if kind in set(table["kind"])]
    handles.append(Line2D([], [], color=METHOD_COLORS["CLIP"], linestyle="-.", label="CLIP"))
    handles += [] if margin is None else [Patch(color="0.93", label=f"counts as equal (±{margin:g} point)")]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.suptitle(f"Difference to CLIP, with 95 % intervals{toy_note(toy)}")
    return fig


def surface_maps(table, clip, *, marks=None, top_ks=(1, 8, 32), title="", toy):
    """Points against CLIP over both weights of Eq. 1, a panel per k.

    Parameters
    ----------
    table : DataFrame of `surface.surface`;  clip : float, CLIP's accuracy (a fraction)
    marks : DataFrame with name, k, image_weight, text_weight, optional: settings to point at
    top_ks : ints, which k are shown

    Returns
    -------
    fig : Figure; one color scale for all panels, white where Eq. 1 equals CLIP
    """
    fig, panels = panel_grid(1, len(top_ks), (1.6 + 3.5 * len(top_ks), 4.3), sharey=True)
    most = min(max(100 * (table["accuracy"] - clip).abs().max(), 0.1), 6)  # so that small gains show
    for ax, k in zip(panels[0], top_ks, strict=True):
        grid = 100 * (table[table["k"] == k].pivot(index="image_weight", columns="text_weight",
                                                   values="accuracy") - clip)
        image = ax.pcolormesh(grid.columns, grid.index, grid.to_numpy(), cmap="RdBu", vmin=-most, vmax=most,
                              shading="nearest")
        if grid.to_numpy().min() < 0 < grid.to_numpy().max():
            ax.contour(grid.columns, grid.index, grid.to_numpy(), levels=[0], colors="k", linewidths=0.8)
        for mark in [] if marks is None else marks[marks["k"] == k].itertuples():
            inside = mark.image_weight <= grid.index.max() and mark.text_weight <= grid.columns.max()
            if inside:
                ax.plot(mark.text_weight, mark.image_weight, "o", markersize=8, markerfacecolor="none",
                        markeredgecolor="k", clip_on=False)
                ax.annotate(mark.name, (mark.text_weight, mark.image_weight),
                            xytext=(8, 5 if mark.text_weight else -14),  # two settings may have one height
                            textcoords="offset points", fontsize=SMALL,
                            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
        ax.set(title=f"k = {k}", xlabel="text weight w_txt")
    panels[0, 0].set_ylabel("image weight w_img")
    fig.colorbar(image, ax=panels[0].tolist(), label="points against CLIP (line: equal)", extend="both")
    fig.suptitle(f"{title}{toy_note(toy)}")
    return fig


def curve_bands(summary, clip, *, toy):
    """Accuracy against size and quality of the reference set, with the range over draws.

    Parameters
    ----------
    summary : DataFrame of `curves.band` with a column dataset besides
    clip : dict, dataset -> accuracy (a fraction)

    Returns
    -------
    fig : Figure: a row per data set, a column per curve
    """
    sets, curves = list(dict.fromkeys(summary["dataset"])), list(dict.fromkeys(summary["curve"]))
    labels = {"size": "number of references", "shuffled captions": "share of shuffled captions",
              "similarity filter": "share of pairs left out, worst fitting first"}
    fig, panels = panel_grid(len(sets), len(curves), (1.6 + 3.6 * len(curves), 0.9 + 2.5 * len(sets)),
                             sharex="col", sharey="row")
    for row, dataset in enumerate(sets):
        for column, curve in enumerate(curves):
            ax = panels[row, column]
            part = summary[(summary["dataset"] == dataset) & (summary["curve"] == curve)]
            for method in dict.fromkeys(part["method"]):
                line = part[part["method"] == method].astype({"x": float})
                color = METHOD_COLORS[method]
                ax.plot(line["x"], 100 * line["mean"], "o-", color=color, markersize=4, label=method)
                ax.fill_between(line["x"], 100 * line["low"], 100 * line["high"], color=color, alpha=0.2)
            ax.axhline(100 * clip[dataset], color=METHOD_COLORS["CLIP"], linestyle="-.", label="CLIP")
            ax.set_xscale("log" if curve == "size" else "linear")
            clean(ax)
            if row == len(sets) - 1:
                ax.set_xlabel(labels.get(curve, curve))
        panels[row, 0].set_ylabel(f"{dataset_title(dataset)}\naccuracy (%)")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle(f"The reference set's size and quality; bands: range over draws{toy_note(toy)}")
    return fig


def origin_bars(summary, clip, *, toy):
    """Points against CLIP for references of several origins, a panel per data set.

    The whiskers are the range over draws.

    Parameters
    ----------
    summary : DataFrame of `curves.band` (curve "references") with a column dataset besides
    clip : dict, dataset -> accuracy (a fraction)

    Returns
    -------
    fig : Figure
    """
    sets, names = list(dict.fromkeys(summary["dataset"])), list(dict.fromkeys(summary["x"]))
    fig, panels = panel_grid(1, len(sets), (2.6 + 3.1 * len(sets), 1.6 + 0.5 * len(names)), sharey=True)
    for ax, dataset in zip(panels[0], sets, strict=True):
        part = summary[summary["dataset"] == dataset]
        for shift, method in zip((-0.18, 0.18), dict.fromkeys(part["method"]), strict=False):
            rows = part[part["method"] == method].set_index("x").loc[names]
            mean, low, high = (100 * (rows[name].to_numpy() - clip[dataset]) for name in
                               ("mean", "low", "high"))
            ax.errorbar(mean, np.arange(len(names)) + shift, fmt="o",
                        xerr=np.maximum([mean - low, high - mean], 0),  # rounding may leave a negative
                        capsize=3, color=METHOD_COLORS[method], label=method)
        ax.axvline(0, color=METHOD_COLORS["CLIP"], linestyle="-.", label="CLIP")
        ax.set(title=dataset_title(dataset), xlabel="points against CLIP")
        ax.grid(axis="y", color="0.92")
        clean(ax)
    panels[0, 0].set_yticks(range(len(names)), [wrapped(name, 28, 2) for name in names])
    panels[0, 0].invert_yaxis()
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle(f"Where the references come from{toy_note(toy)}")
    return fig


def hub_curves(counts, k, *, toy):
    """How often each reference is somebody's neighbor, most wanted first: a line per data set.

    Parameters
    ----------
    counts : dict, name -> int array (m,), see `diagnostics.k_occurrence`; the last is drawn in grey, as the
        control;  k : int

    Returns
    -------
    fig : Figure
    """
    fig, panels = panel_grid(1, 1, (7.4, 3.9))
    ax, styles = panels[0, 0], ("-", "--", ":", (0, (4, 1, 1, 1)))
    for place, (name, values) in enumerate(counts.items()):
        last = place == len(counts) - 1
        ax.plot(100 * np.arange(1, len(values) + 1) / len(values),
                np.sort(values)[::-1] / values.mean(), linestyle=styles[place % 4],
                color=CONTROL_COLOR if last else METHOD_COLORS["RA-CLIP Vanilla"],
                label=name if last else dataset_title(name))
    ax.set(xscale="log", xlabel="references, most wanted first (%)", ylim=(0, None),
           ylabel=f"times among the {k} nearest,\nrelative to the mean",
           title=f"Hubs: some references serve everybody{toy_note(toy)}")
    ax.xaxis.set_major_formatter("{x:g}")
    clean(ax)
    ax.legend(frameon=False)
    return fig


def gap_planes(planes, *, toy):
    """Pictures and texts in the plane of their largest spread, before and after centering.

    Parameters
    ----------
    planes : dict, title -> (pictures (m, 2), texts (m, 2))

    Returns
    -------
    fig : Figure
    """
    fig, panels = panel_grid(1, len(planes), (4.3 * len(planes) + 0.6, 4.2))
    for ax, (title, (pictures, texts)) in zip(panels[0], planes.items(), strict=True):
        for points, color, label in ((pictures, R_IMG, "pictures"), (texts, R_TXT, "texts")):
            ax.plot(*np.asarray(points).T, "o", color=color, markersize=3, alpha=0.5, label=label)
        ax.set(title=title, xlabel="first principal component", ylabel="second principal component")
        ax.set_aspect("equal", adjustable="datalim")
        clean(ax)
    panels[0, 0].legend(frameon=False, markerscale=2)
    fig.suptitle(f"The modality gap{toy_note(toy)}")
    return fig


def reliability(tables, *, title="", toy):
    """Accuracy against confidence; on the diagonal a method is right as often as it says.

    Parameters
    ----------
    tables : dict, method -> DataFrame of `calibration.reliability_table`

    Returns
    -------
    fig : Figure
    """
    fig, panels = panel_grid(1, 1, (8.6, 4.4))
    ax = panels[0, 0]
    ax.plot([0, 100], [0, 100], color="0.6", linestyle="--", label="as often right as it says")
    for method, table in tables.items():
        name = method.split(",")[0]
        ax.plot(100 * table["confidence"], 100 * table["accuracy"], marker="o", markersize=4, label=method,
                color=METHOD_COLORS.get(name, RIVAL_COLOR), linestyle=":" if "fitted" in method else "-")
    ax.set(xlabel="confidence (%)", ylabel="right (%)", title=f"{title}{toy_note(toy)}", xlim=(0, 100),
           ylim=(0, 100))
    clean(ax)
    ax.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.01, 1))
    return fig


def cost_and_accuracy(table, *, title="", toy):
    """What a method costs per query beside what it reaches.

    Parameters
    ----------
    table : DataFrame of `diagnostics.cost_table`, indexed by method

    Returns
    -------
    fig : Figure
    """
    ordered = table.sort_values("accuracy", ascending=False)
    fig, panels = panel_grid(1, 2, (9.5, 1.4 + 0.33 * len(table)), sharey=True)
    cost = "microseconds per query on this machine,\nfeatures given, with its search if it has one"
    for ax, name, factor, label in zip(panels[0], ("accuracy", "ms_per_query"), (100, 1000),
                                       ("accuracy (%)", cost), strict=True):
        for place, (method, row) in enumerate(ordered.iterrows()):
            color = METHOD_COLORS.get(method, RIVAL_COLOR)
            ax.plot(factor * row[name], place, "o", color=color, markersize=7)
            if name == "ms_per_query":
                ax.hlines(place, factor * row["ms_low"], factor * row["ms_high"], color=color)
        ax.set_xlabel(label)
        ax.grid(axis="y", color="0.92")
        clean(ax)
    panels[0, 1].set_xscale("log")
    panels[0, 0].set_yticks(range(len(table)), list(ordered.index))
    panels[0, 0].invert_yaxis()
    fig.suptitle(f"{title}{toy_note(toy)}")
    return fig


def class_changes(table, *, most=8, title="", toy):
    """Which classes gain and which lose: pictures mended and broken per class.

    Parameters
    ----------
    table : DataFrame with class_name, n, b (pictures only CLIP has right), c (only the method)
    most : int, classes shown at either end

    Returns
    -------
    fig : Figure
    """
    ordered = table.assign(net=table["c"] - table["b"]).sort_values("net", kind="stable", ascending=False)
    shown = ordered if len(ordered) <= 2 * most else ordered.iloc[[*range(most), *range(-most, 0)]]
    fig, panels = panel_grid(1, 1, (7.2, 1.3 + 0.27 * len(shown)))
    ax, rows = panels[0, 0], np.arange(len(shown))
    ax.barh(rows, shown["c"], color=METHOD_COLORS["RA-CLIP Vanilla"],
            label="mended (only the method is right)")
    ax.barh(rows, -shown["b"], color=METHOD_COLORS["CLIP"], label="broken (only CLIP is right)")
    ax.axvline(0, color="0.3", linewidth=0.8)
    for row, (net, n) in enumerate(zip(shown["net"], shown["n"], strict=True)):
        ax.text(1.01, row, f"{net:+d} of {n}", transform=ax.get_yaxis_transform(), va="center",
                fontsize=SMALL)
    ax.set_yticks(rows, [wrapped(name, 24, 1) for name in shown["class_name"]])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set(xlabel="pictures", title=f"{title}{toy_note(toy)}")
    clean(ax)
    fig.legend(loc="outside lower center", ncols=2, frameon=False)
    return fig
