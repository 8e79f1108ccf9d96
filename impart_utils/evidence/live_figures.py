"""What the notebooks' live cells draw: each function prepares data and returns a `draw` for `live.explore`.

`draw` takes what the controls say and returns a Figure; called without a notebook it does the same.
`toy=True` says so in the title.
"""

import numpy as np

from impart_utils.evidence.figures import SMALL, clean, new_figure, panel_grid, toy_note, wrapped
from impart_utils.evidence.metrics import wilson
from impart_utils.evidence.plots import METHOD_COLORS, score_terms, vectors_2d
from impart_utils.reference import scaled
from impart_utils.retrieval import Retriever
from impart_utils.zeroshot import logits

SHOWN = 8  # neighbors with their picture; more are counted and summed, not shown
VERDICTS = {"inside": METHOD_COLORS["RA-CLIP (RAM, normalized)"], "outside": METHOD_COLORS["RA-CLIP Vanilla"]}


# ---- 00: one decision --------------------------------------------------------------------------


def clip_decision(class_vectors):
    """CLIP's decision in the plane.

    Parameters
    ----------
    class_vectors : dict, name -> array (2,), one text per class

    Returns
    -------
    draw : function (angle, length, scale) -> Figure: the picture's vector by its angle in degrees and its
        length, and the softmax of `scale` times its cosines
    """
    names, W = list(class_vectors), np.array(list(class_vectors.values()), dtype=float)  # (c, 2)

    def draw(angle, length, scale):
        v = length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        scores = logits(v[None], W, scale=scale)[0]          # (c,)
        shares = np.exp(scores - scores.max())
        shares = 100 * shares / shares.sum()
        fig, panels = panel_grid(1, 2, (10, 4), width_ratios=[1.5, 1])
        left, right = panels[0]
        vectors_2d(v, class_vectors=class_vectors, query_name="v, the picture",
                   title="One picture, some texts", ax=left)
        _legend_below(left, ncols=2)
        bars = right.barh(names, shares, color=METHOD_COLORS["CLIP"])
        right.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=3, fontsize=SMALL)
        right.invert_yaxis()
        clean(right)
        right.set(xlim=(0, 118), xticks=range(0, 101, 25), xlabel="probability (%)",
                  title=f"softmax of {scale:g} · cosine: {names[int(scores.argmax())]}")
        return fig

    return draw


# ---- 02: Eq. 1 on one query --------------------------------------------------------------------


def votes(v, r_img, r_txt, class_features, *, image_weight, text_weight):
    """The three terms whose sum is v' · W (Eq. 1).

    Parameters
    ----------
    v : array (d,);  r_img, r_txt : arrays (k, d);  class_features : array (c, d)

    Returns
    -------
    terms : dict, name -> array (c,): the query's, the mean image's and the mean caption's
    """
    return {"query (CLIP)": class_features @ v,  # (c, d) @ (d,) -> (c,)
            "mean neighbor image": image_weight * class_features @ r_img.mean(axis=0),
            "mean caption": text_weight * class_features @ r_txt.mean(axis=0)}


def query_menu(test, before, after, *, most=4):
    """Rows of a test set to choose from, those first on which the decision changed.

    Parameters
    ----------
    test : TestSet;  before, after : bool arrays (n,), right without and with Eq. 1
    most : int, rows per kind

    Returns
    -------
    menu : list of (label, row), such as ("311: boat, mended", 311)
    """
    kinds = {"mended": ~before & after, "broken": before & ~after, "right before and after": before & after,
             "wrong before and after": ~before & ~after}
    return [(f"{row}: {test.class_names[test.labels[row]]}, {kind}", int(row))
            for kind, which in kinds.items() for row in np.flatnonzero(which)[:most]]


def eq1_on_one_query(test, references, query_pictures, reference_pictures, *, scale="unit", toy):
    """A query, its k nearest references, and the class scores of v and v'.

    Parameters
    ----------
    test : TestSet;  references : ReferenceSet;  scale : as for `reference.scaled`
    query_pictures : function of rows of `test` -> pictures
    reference_pictures : function of ids of `references` -> pictures

    Returns
    -------
    draw : function (row, top_k, image_weight, text_weight) -> Figure
    """
    v, R_img, R_txt = scaled(test.image_features, references, scale)
    retriever = Retriever(references.image_features)

    def draw(row, top_k, image_weight, text_weight):
        similarities, indices = (found[0] for found in retriever.search(test.image_features[[row]], top_k))
        terms = votes(v[row], R_img[indices], R_txt[indices], test.class_features, image_weight=image_weight,
                      text_weight=text_weight)
        before, after = (int(scores.argmax()) for scores in (terms["query (CLIP)"], sum(terms.values())))
        names, truth = test.class_names, int(test.labels[row])
        fig = new_figure((8.4, 7.6))
        fig.get_layout_engine().set(h_pad=0.09)  # room between a caption and the cosine below it
        above, below = fig.subfigures(2, 1, height_ratios=[1.2, 1])
        _query_and_neighbors(above, query_pictures([row])[0], names[truth],
                             reference_pictures([references.ids[i] for i in indices[:SHOWN]]),
                             [references.captions[i] for i in indices[:SHOWN]], similarities)
        shown = _classes_to_show(terms["query (CLIP)"], {before, after, truth})
        ax = score_terms([names[c] for c in shown], {name: scores[shown] for name, scores in terms.items()},
                         truth=names[truth], toy=False, ax=below.subplots())
        _legend_below(ax, ncols=4)
        more = f", {SHOWN} of them shown" if top_k > SHOWN else ""
        fig.suptitle(wrapped(f"k = {top_k}{more}: v says {names[before]}, v′ says {names[after]} "
                             f"(it is: {names[truth]}){toy_note(toy)}", 88, 3))
        return fig

    return draw


def _classes_to_show(query_scores, always, most=6):
    """The query's likeliest classes, those of `always` among them, likeliest first."""
    ranked = [int(c) for c in np.argsort(-query_scores, kind="stable")]
    others = [c for c in ranked if c not in always][:max(0, most - len(always))]
    return [c for c in ranked if c in always or c in others]


def _query_and_neighbors(fig, query, query_title, pictures, captions, similarities):
    """The query on the left, its neighbors in two rows; the places stay where they are for every k."""
    grid = fig.add_gridspec(2, SHOWN // 2 + 1)
    places = [grid[:, 0], *(grid[place // 4, place % 4 + 1] for place in range(SHOWN))]
    titles = ["query", *(f"cosine {similarity:.2f}" for similarity in similarities[:SHOWN])]
    below = [query_title, *(caption or "(no caption)" for caption in captions)]
    for ax in map(fig.add_subplot, places[len(titles):]):
        ax.axis("off")
    for place, picture, title, text in zip(places, [query, *pictures], titles, below, strict=False):
        ax = fig.add_subplot(place)
        ax.imshow(np.asarray(picture))
        ax.set_title(title, fontsize=SMALL)
        ax.set_xlabel(wrapped(text, 20, 3), fontsize=SMALL)
        ax.set(xticks=[], yticks=[], anchor="N")


# ---- 09: one verdict ---------------------------------------------------------------------------


def interval_by_n(paper, ns=(100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)):
    """One accuracy measured on more and more pictures: when does the paper's value leave our interval?

    Parameters
    ----------
    paper : float, the paper's accuracy in percent;  ns : numbers of pictures

    Returns
    -------
    draw : function (ours) -> Figure: Wilson's 95 % interval of `ours` percent of n pictures, for every n
    """
    def draw(ours):
        fig, panels = panel_grid(1, 1, (7.5, 4.2))
        ax = panels[0, 0]
        for n in ns:
            correct = round(ours / 100 * n)
            low, high = (100 * end for end in wilson(correct, n))
            kind = "inside" if low <= paper <= high else "outside"
            ax.plot([n, n], [low, high], color=VERDICTS[kind], linewidth=3, solid_capstyle="butt")
            ax.plot(n, 100 * correct / n, "ko", markersize=5)
        ax.axhline(paper, color="k", linestyle="--", linewidth=1.3,
                   label=f"the paper's value ({paper:.2f} %)")
        ax.plot([], [], "ko", markersize=5, label="ours")
        for kind, color in VERDICTS.items():
            ax.plot([], [], color=color, linewidth=3, label=f"95 % interval, the paper's value {kind}")
        ax.set(xscale="log", xlabel="pictures scored (log scale)", ylabel="accuracy (%)",
               title=f"The same accuracy, {ours:.2f} %, on more and more pictures (made-up numbers)")
        ax.set_xticks(ns, [f"{n:,}" for n in ns], fontsize=SMALL)
        ax.minorticks_off()
        clean(ax)
        ax.legend()
        _legend_below(ax, ncols=2)
        return fig

    return draw


def _legend_below(ax, ncols):
    """The legend that `ax` has, moved under its axis so that the figure fits a page's width."""
    old = ax.get_legend()
    ax.legend(old.legend_handles, [text.get_text() for text in old.get_texts()], loc="upper center",
              bbox_to_anchor=(0.5, -0.18), ncols=ncols, frameon=False, fontsize=SMALL)
