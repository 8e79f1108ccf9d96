"""Why retrieval helps or hurts: hubs among the references, the modality gap, and what it costs.

Calibration has a module of its own, calibration.py.
"""

import time
import tracemalloc

import numpy as np
import pandas as pd

from impart_utils.evidence.eq1 import eq1, first_neighbors
from impart_utils.evidence.rivals import centered
from impart_utils.retrieval import Retriever
from impart_utils.zeroshot import unit

# ---- Hubs: references that are everybody's neighbor ----------------------------------------------------


def k_occurrence(neighbor_indices, references):
    """N_k: how often each reference is among the k nearest of a query.

    Parameters
    ----------
    neighbor_indices : int array (n, k);  references : int, m

    Returns
    -------
    counts : int64 array (m,); their mean is n k / m
    """
    return np.bincount(np.asarray(neighbor_indices).ravel(), minlength=references)


def hubness(neighbor_indices, references, *, share=0.01):
    """How unevenly the references serve the queries (Radovanović et al., JMLR 2010).

    Parameters
    ----------
    neighbor_indices : int array (n, k);  references : int, m
    share : float, which part of the references counts as hubs (at least one of them)

    Returns
    -------
    found : dict. skew: skewness of N_k, near 0 for neighbors at random; hub_share: the part of all neighbor
        places that the top `share` of references fill; unused: the part of references that nobody gets;
        largest: N_k of the largest hub over the mean
    """
    from scipy.stats import skew

    counts = k_occurrence(neighbor_indices, references)
    if not counts.sum() or len(counts) != references:
        raise ValueError(f"Expected neighbors from 0 to {references - 1}, at least one; got "
                         f"{np.size(neighbor_indices)} up to {len(counts) - 1}.")
    most = np.sort(counts)[-_hub_count(references, share):]
    skewness = 0.0 if counts.min() == counts.max() else float(skew(counts))
    return {"skew": skewness, "hub_share": float(most.sum() / counts.sum()),
            "unused": float(np.mean(counts == 0)), "largest": float(counts.max() / counts.mean())}


def hubs(reference_image_features, *, top_k=8, share=0.01):
    """The references that are most often among the `top_k` nearest of the others, each hidden from itself.

    Parameters
    ----------
    reference_image_features : array (m, d);  top_k : int;  share : float, as for `hubness`

    Returns
    -------
    rows : int array, rising; no test picture plays a part
    """
    m = len(reference_image_features)
    _, own = Retriever(reference_image_features).search(reference_image_features, top_k, exclude=np.arange(m))
    rising = np.argsort(k_occurrence(own, m), kind="stable")
    return np.sort(rising[m - _hub_count(m, share):])


def hub_table(image_features, labels, class_features, reference_image_features, reference_text_features, *,
              top_k=8, image_weight=0.5, text_weight=0.05, share=0.01):
    """Hubness and accuracy of Eq. 1 as it is, without the `hubs`, and with the search in centered space.

    Parameters
    ----------
    image_features : array (n, d);  labels : int array (n,);  class_features : array (c, d)
    reference_…_features : arrays (m, d);  the others as for `eq1.eq1` and `hubness`

    Returns
    -------
    table : DataFrame indexed by "as it is", "without hubs", "centered search", with the columns of `hubness`,
        references (how many are left) and accuracy (a fraction)
    """
    V, m = unit(reference_image_features), len(reference_image_features)
    keep = np.delete(np.arange(m), hubs(V, top_k=top_k, share=share))
    center = V.mean(axis=0)
    searches = {"as it is": (np.arange(m), V, unit(image_features)),
                "without hubs": (keep, V[keep], unit(image_features)),
                "centered search": (np.arange(m), V - center, unit(image_features) - center)}
    rows = {}
    for name, (left, references, queries) in searches.items():
        _, indices = Retriever(references).search(queries, top_k)
        scores = eq1(image_features, reference_image_features[left], reference_text_features[left],
                     class_features, indices, top_k=top_k, image_weight=image_weight, text_weight=text_weight)
        rows[name] = {"references": len(left), **hubness(indices, len(left), share=share),
                      "accuracy": float(np.mean(scores.argmax(axis=1) == labels))}
    return pd.DataFrame.from_dict(rows, orient="index")


def _hub_count(references, share):
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1 of the references as hubs, got {share!r}.")
    return max(1, round(share * references))


# ---- The modality gap ----------------------------------------------------------------------------------


def gap(image_features, text_features):
    """How far apart the pictures and the texts of pairs lie on the sphere (Liang et al., NeurIPS 2022).

    Parameters
    ----------
    image_features, text_features : arrays (m, d), pair by pair, m >= 2

    Returns
    -------
    found : dict. distance: between the means of the unit vectors; matched, mismatched: mean cosine of a
        picture with its own text and with another's; pictures, texts: mean cosine of two different pictures
        and of two different texts
    """
    V, T = unit(image_features), unit(text_features)
    if V.shape != T.shape or len(V) < 2:
        raise ValueError(f"Expected as many texts as pictures, at least two, got {V.shape} and {T.shape}.")
    m = len(V)
    matched = (V * T).sum(axis=1)                                       # (m,)
    mismatched = (V.sum(axis=0) @ T.sum(axis=0) - matched.sum()) / (m * (m - 1))
    within = [(np.square(part.sum(axis=0)).sum() - m) / (m * (m - 1)) for part in (V, T)]
    return {"distance": float(np.linalg.norm(V.mean(axis=0) - T.mean(axis=0))),
            "matched": float(matched.mean()), "mismatched": float(mismatched),
            "pictures": float(within[0]), "texts": float(within[1])}


def gap_table(image_features, text_features):
    """`gap` before and after each modality is centered: DataFrame indexed by "as it is" and "centered"."""
    return pd.DataFrame.from_dict({"as it is": gap(image_features, text_features),
                                   "centered": gap(centered(image_features), centered(text_features))},
                                  orient="index")


def caption_offset(reference_text_features, class_features, neighbor_indices, *, top_k=8):
    """The caption term of Eq. 1, mean(T_k)·W_c: how much is the same for every query, so only favors classes?

    Parameters
    ----------
    reference_text_features : array (m, d);  class_features : array (c, d), c >= 2
    neighbor_indices : int array (n, k or more), n >= 2

    Returns
    -------
    table : DataFrame with one row per class: offset, the term's mean over the queries, less the mean over
        classes (which moves no argmax); spread, its standard deviation over the queries
    constant_share : float, variance of the offsets over the classes, as a part of that variance plus the mean
        variance over the queries: 1 where every query gets the same caption scores, whatever it shows
    """
    T, W = unit(reference_text_features), unit(class_features)
    term = (T @ W.T)[first_neighbors(neighbor_indices, top_k)].mean(axis=1)  # (m, c) -> (n, k, c) -> (n, c)
    term = term - term.mean(axis=1, keepdims=True)
    table = pd.DataFrame({"offset": term.mean(axis=0), "spread": term.std(axis=0)})
    between, within = float(term.mean(axis=0).var()), float(term.var(axis=0).mean())
    return table, between / (between + within) if between + within > 0 else 0.0


# ---- Cost ----------------------------------------------------------------------------------------------


def cost(function, queries, *, repeats=5):
    """Time and memory of a method per query, measured here and now.

    Parameters
    ----------
    function : callable without arguments that treats all the queries
    queries : int, how many that are;  repeats : int, timed calls after one to warm up

    Returns
    -------
    found : dict. ms_per_query: median of the calls; ms_low, ms_high: fastest and slowest; mb_per_query: most
        memory that NumPy held at once during a call (10^6 bytes; tensors of torch are not seen)
    """
    if queries < 1 or repeats < 1:
        raise ValueError(f"Expected queries and repeats of at least 1, got {queries} and {repeats}.")
    tracemalloc.start()
    try:
        function()  # warms up too
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    per_query = [1000 * value / queries for value in (np.median(seconds), min(seconds), max(seconds))]
    return dict(zip(("ms_per_query", "ms_low", "ms_high"), per_query, strict=True),
                mb_per_query=peak / 1e6 / queries)


def cost_table(ways, labels, *, repeats=5):
    """`cost` of several methods beside their accuracy.

    Parameters
    ----------
    ways : dict name -> callable without arguments that returns scores (n, c); for a method that searches,
        with its search
    labels : int array (n,)

    Returns
    -------
    table : DataFrame indexed by name: accuracy (a fraction), ms_per_query, ms_low, ms_high, mb_per_query
    """
    rows = {}
    for name, way in ways.items():
        reached = float(np.mean(way().argmax(axis=1) == labels))
        rows[name] = {"accuracy": reached, **cost(way, len(labels), repeats=repeats)}
    return pd.DataFrame.from_dict(rows, orient="index")
