"""Figures of notebook 01: how near the references come to test pictures, and which classes they know.

Data in, Axes or Figure out; nothing is measured here. `toy=True` says so in the title.
"""

import numpy as np

from impart_utils.evidence.figures import SMALL, clean, panel_grid, toy_note
from impart_utils.evidence.plots import METHOD_COLORS, dataset_title, similarity_histogram


def nearest_histogram(tables, threshold, *, toy):
    """Cosine of each test picture with its nearest reference, and the one from which a picture is flagged.

    Parameters
    ----------
    tables : dict, test set's name -> DataFrame of `leakage.near_duplicates`;  threshold : float

    Returns
    -------
    ax : Axes
    """
    groups = {dataset_title(name): table["similarity"] for name, table in tables.items()}
    ax = similarity_histogram(groups, toy=toy)
    ax.axvline(threshold, color="k", linestyle="--", linewidth=1.3, label=f"flagged from {threshold:.3f}")
    ax.set(xlabel="cosine with the nearest reference", ylabel="share of the test pictures (%)",
           title=f"How near the references come{toy_note(toy)}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return ax


def closest_pairs(pictures, reference_pictures, titles, *, toy):
    """Test pictures above, their nearest references below, for the eye to judge.

    Parameters
    ----------
    pictures, reference_pictures : lists of p PIL images;  titles : list of p str, above each pair

    Returns
    -------
    fig : Figure
    """
    fig, panels = panel_grid(2, len(pictures), (0.6 + 1.7 * len(pictures), 4.4))
    for column, (upper, lower) in enumerate(panels.T):
        upper.imshow(np.asarray(pictures[column]))
        upper.set_title(titles[column], fontsize=SMALL)
        lower.imshow(np.asarray(reference_pictures[column]))
    for ax in panels.ravel():
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    panels[0, 0].set_ylabel("test picture")
    panels[1, 0].set_ylabel("nearest reference")
    fig.suptitle(f"The closest test pictures and references{toy_note(toy)}")
    return fig


def coverage_and_gain(tables, *, toy):
    """What Eq. 1 changes in each class against how many captions name it; a panel per test set.

    Parameters
    ----------
    tables : dict, test set's name -> DataFrame with named (captions) and gain (a fraction) per class

    Returns
    -------
    fig : Figure. Dots are drawn a little apart where several classes have one number of captions.
    """
    fig, panels = panel_grid(1, len(tables), (1.2 + 3.4 * len(tables), 3.8), sharey=True)
    for ax, (name, table) in zip(panels[0], tables.items(), strict=True):
        aside = np.random.default_rng(0).uniform(-0.25, 0.25, len(table))
        ax.axhline(0, color=METHOD_COLORS["CLIP"], linestyle="-.", linewidth=1.3)
        ax.plot(table["named"] + aside, 100 * table["gain"], "o", color=METHOD_COLORS["RA-CLIP Vanilla"],
                markersize=4, alpha=0.7)
        bare = int((table["named"] == 0).sum())
        ax.set(xlabel="captions that name the class",
               title=f"{dataset_title(name)}\n{bare} of {len(table)} classes in no caption")
        clean(ax)
    panels[0, 0].set_ylabel("Eq. 1 against CLIP (points)")
    fig.suptitle(f"A dot a class: named more, helped more?{toy_note(toy)}")
    return fig
