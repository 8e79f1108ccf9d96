"""Figures of notebooks 03 and 05: what RAM looks at, what each part of it does, whether more training helps.

Data in, Figure out; nothing is measured here. `toy=True` says so in the title.
"""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from impart_utils.evidence.figures import (
    SMALL,
    clean,
    new_figure,
    panel_grid,
    show_picture,
    toy_note,
    wrapped,
)
from impart_utils.evidence.plots import METHOD_COLORS, R_IMG, R_TXT, VARIANTS, dataset_title

BRANCHES = {"text": ("text branch: takes captions", R_TXT), "image": ("image branch: takes pictures", R_IMG)}


def attention_panel(query, neighbor_pictures, captions, weights, *, query_title="", toy=False):
    """A query, its neighbors and how much RAM takes from each.

    Parameters
    ----------
    query : picture;  neighbor_pictures : list of k pictures;  captions : list of k str
    weights : dict, "text" and "image" -> array (k,), one layer's attention, mean over heads, sums to 1

    Returns
    -------
    fig : Figure. The dashed line is 1 / k, what a plain mean takes from each.
    """
    k = len(neighbor_pictures)
    fig = new_figure((1.75 * (k + 1.3), 4.9))
    grid = fig.add_gridspec(2, k + 1, width_ratios=[1.3, *[1] * k], height_ratios=[1.25, 1])
    show_picture(fig.add_subplot(grid[0, 0]), query, "query", wrapped(query_title, 18, 3))
    for place, (picture, caption) in enumerate(zip(neighbor_pictures, captions, strict=True)):
        show_picture(fig.add_subplot(grid[0, place + 1]), picture, f"{place + 1}",
                     wrapped(caption or "(no caption)", 15, 4))
    ax = fig.add_subplot(grid[1, 1:])
    for shift, (branch, (label, color)) in zip((-0.19, 0.19), BRANCHES.items(), strict=True):
        ax.bar(np.arange(1, k + 1) + shift, 100 * np.asarray(weights[branch]), 0.36, color=color, label=label)
    ax.axhline(100 / k, color="k", linestyle="--", linewidth=1.2, label=f"plain mean ({100 / k:.1f} %)")
    ax.set(xlim=(0.5, k + 0.5), xticks=range(1, k + 1), xlabel="neighbor, nearest first",
           ylabel="attention (%)")
    clean(ax)
    note = fig.add_subplot(grid[1, 0])
    note.axis("off")
    note.legend(*ax.get_legend_handles_labels(), loc="center", frameon=False, fontsize=SMALL)
    fig.suptitle(f"What RAM takes from which neighbor{toy_note(toy)}")
    return fig


def attention_spread(entropies, k, *, toy):
    """How even the attention is: one histogram per layer, both branches in each.

    Parameters
    ----------
    entropies : dict, (layer from 1, "text" or "image") -> array (n,), nats, mean over heads
    k : int;  a plain mean has ln k, attention to one neighbor alone 0

    Returns
    -------
    fig : Figure
    """
    layers = sorted({layer for layer, _ in entropies})
    fig, panels = panel_grid(1, len(layers), (4.6 * len(layers) + 1.5, 3.6), sharex=True, sharey=True)
    edges = np.linspace(0, np.log(k) * 1.02, 41)
    for ax, layer in zip(panels[0], layers, strict=True):
        for branch, (label, color) in BRANCHES.items():
            values = np.asarray(entropies[layer, branch])
            style = {"weights": np.full(len(values), 100 / len(values)), "color": color}
            ax.hist(values, edges, alpha=0.5, label=label, **style)
            ax.hist(values, edges, histtype="step", linewidth=1.4, **style)
        ax.axvline(np.log(k), color="k", linestyle="--", linewidth=1.2, label=f"plain mean, ln {k}")
        ax.set(xlabel="entropy of a head's attention (nats)", ylabel="share of the queries (%)",
               title=f"layer {layer}{toy_note(toy)}")
        clean(ax)
        ax.label_outer()
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return fig


def taken_apart(table, base, *, clip=None, toy, title="RAM taken apart, one change at a time"):
    """What each part of RAM does: points against the base, a row per change, a dot per seed.

    Parameters
    ----------
    table : DataFrame with change (str), dataset, seed, accuracy (a fraction), added (mean of
        ‖output - v‖ / ‖v‖: what RAM adds and what its ReLU removes)
    base : str, the `change` that the others are compared with, seed by seed
    clip : dict, dataset -> accuracy, optional: plain CLIP, as a line

    Returns
    -------
    fig : Figure: a panel per data set, and one for the length of the change
    """
    changes, sets = list(dict.fromkeys(table["change"])), list(dict.fromkeys(table["dataset"]))
    fig, panels = panel_grid(1, len(sets) + 1, (2.6 + 2.9 * (len(sets) + 1), 1.4 + 0.34 * len(changes)),
                             sharey=True)
    rows = np.arange(len(changes))
    for ax, dataset in zip(panels[0], sets, strict=False):
        by_seed = table[table["dataset"] == dataset].pivot_table(index="change", columns="seed",
                                                                 values="accuracy").loc[changes]
        points = 100 * (by_seed - by_seed.loc[base]).to_numpy()  # (changes, seeds)
        _dots(ax, rows, points)
        ax.axvline(0, color="0.6", linewidth=1, zorder=0)
        if clip is not None:
            ahead = 100 * (clip[dataset] - by_seed.loc[base].mean())
            ax.axvline(ahead, color=METHOD_COLORS["CLIP"], linestyle="-.", linewidth=1.4, zorder=0)
            ax.set_xlim(min(ax.get_xlim()[0], ahead - 1), max(ax.get_xlim()[1], ahead + 1))  # not on the edge
        ax.set(title=dataset_title(dataset), xlabel="points against the base")
    added = table.groupby(["change", "seed"])["added"].mean().unstack().loc[changes].to_numpy()
    _dots(panels[0, -1], rows, added)
    panels[0, -1].set(title="how much changes", xlabel="length of output − v / length of v", xscale="log")
    panels[0, -1].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panels[0, -1].xaxis.set_major_formatter("{x:g}")
    panels[0, -1].minorticks_off()
    panels[0, 0].set_yticks(rows, [f"{change} (base)" if change == base else change for change in changes])
    panels[0, 0].set_ylim(len(changes) - 0.4, -0.6)  # the first on top, however many there are
    handles = [Line2D([], [], color="0.1", marker="o", markersize=4, linestyle="none", label="one training"),
               Line2D([], [], color=METHOD_COLORS["RA-CLIP (RAM)"], linewidth=3, label="mean over seeds")]
    if clip is not None:
        handles.append(Line2D([], [], color=METHOD_COLORS["CLIP"], linestyle="-.", label="plain CLIP"))
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle(f"{title}{toy_note(toy)}")
    return fig


def more_training(by_pairs, by_epoch, clip, *, toy):
    """Accuracy of RAM against training pairs (above) and epochs (below), a column per data set.

    Parameters
    ----------
    by_pairs : DataFrame with normalize, dataset, seed, pairs, accuracy (a fraction, after the last epoch)
    by_epoch : DataFrame with normalize, dataset, seed, epoch (0: before training), accuracy
    clip : dict, dataset -> accuracy

    Returns
    -------
    fig : Figure
    """
    sets = list(dict.fromkeys(by_pairs["dataset"]))
    fig, panels = panel_grid(2, len(sets), (2.2 + 3.4 * len(sets), 6.4), sharey="col", sharex="row")
    for column, dataset in enumerate(sets):
        for row, (table, x) in enumerate(((by_pairs, "pairs"), (by_epoch, "epoch"))):
            ax = panels[row, column]
            part = table[table["dataset"] == dataset]
            for variant in dict.fromkeys(part["normalize"]):
                label, color, _ = VARIANTS[variant]
                rows = part[part["normalize"] == variant]
                mean = rows.groupby(x)["accuracy"].mean()
                ax.plot(mean.index, 100 * mean, color=color, linewidth=1.6, label=label)
                ax.plot(rows[x], 100 * rows["accuracy"], "o", color=color, markersize=3, alpha=0.6)
            ax.axhline(100 * clip[dataset], color=METHOD_COLORS["CLIP"], linestyle="-.", label="plain CLIP")
            ax.set(xlabel="training pairs" if row == 0 else "epochs", ylabel="accuracy (%)")
            clean(ax)
        panels[0, column].set(title=dataset_title(dataset), xscale="log")
        counts = sorted(by_pairs["pairs"].unique())
        panels[0, column].set_xticks(counts, [f"{count:,}" for count in counts])
        panels[0, column].minorticks_off()
    for ax in panels[:, 1:].ravel():
        ax.set_ylabel("")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    fig.suptitle(f"Does more training close the gap?{toy_note(toy)}")
    return fig


def training_overview(history, *, chance, toy):
    """Loss per step, alignment per epoch and, where it is learned, the temperature; a color per variant.

    Parameters
    ----------
    history : DataFrame with variant ("none", "branch", "sum" or one other), step, epoch, loss, and on the
        last step of each epoch alignment (mean cosine of augmented pictures with their own texts minus
        that with others'), temperature and, where pairs were held out, validation_loss
    chance : float, the loss where all scores are equal

    Returns
    -------
    fig : Figure
    """
    learned = "temperature" in history and history["temperature"].dropna().nunique() > 1
    fig, panels = panel_grid(1, 3 if learned else 2, (4.3 * (3 if learned else 2) + 1.6, 3.9))
    for variant, rows in history.groupby("variant", sort=False):
        label, color, hatch = VARIANTS.get(variant, (variant, "#222222", ""))
        style = {"color": color, "linestyle": ":" if hatch else "-"}
        panels[0, 0].plot(rows["step"], rows["loss"], linewidth=0.8, alpha=0.8, label=label, **style)
        for ax, name in zip(panels[0, 1:], ("alignment", "temperature"), strict=False):
            ends = rows.dropna(subset=[name])
            ax.plot(ends["epoch"], ends[name], marker="o", markersize=4, label=label, **style)
        if "validation_loss" in rows and rows["validation_loss"].notna().any():
            ends = rows.dropna(subset=["validation_loss"])
            panels[0, 0].plot(ends["step"], ends["validation_loss"], "s", color=color, markersize=5,
                              markeredgecolor="k", label=f"{label}, held-out pairs")
    panels[0, 0].axhline(chance, color="k", linestyle="--", linewidth=1.2, label=f"chance ({chance:.2f})")
    panels[0, 0].set(xlabel="step (one batch each)", ylabel="contrastive loss (nats)", title="loss")
    panels[0, 1].set(xlabel="epoch", ylabel="cosine to own text − to others'", title="alignment")
    if learned:
        panels[0, 2].set(xlabel="epoch", ylabel="temperature T", yscale="log", title="temperature")
    for ax in panels[0]:
        clean(ax)
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle(f"Training RAM{toy_note(toy)}")
    return fig


def _dots(ax, rows, values):
    """Per row a dot per seed and a thick mark at their mean."""
    for row, seeds in zip(rows, values, strict=True):
        ax.plot(seeds, np.full(len(seeds), row), "o", color="0.1", markersize=4, zorder=4)
    ax.plot([np.nanmean(values, axis=1)] * 2, [rows - 0.3, rows + 0.3], linewidth=3, zorder=3,
            color=METHOD_COLORS["RA-CLIP (RAM)"])
    ax.grid(axis="y", color="0.92")
    clean(ax)
