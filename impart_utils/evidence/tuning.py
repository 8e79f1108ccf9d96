"""Weights and k chosen without the test set, and what choosing them on it would have pretended.

Two ways: by the accuracy on a labelled split that is named in the result, or without labels, by how well the
references find their own captions when each pair is hidden from itself.
"""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from impart_utils.evidence.controls import changed
from impart_utils.evidence.eq1 import as_scaled, eq1
from impart_utils.evidence.surface import TOP_KS, WEIGHTS, surface
from impart_utils.retrieval import Retriever
from impart_utils.sources.workers import side_by_side
from impart_utils.zeroshot import logits, unit

ROLES = ("tuning", "test")
COUNTS = ("top_k", "captions")  # settings that can't exceed the number of neighbors
# Settings tried for the rivals' own parameters: each source's searched range, coarsely. The first of equally
# good ones is taken.
GRIDS = {
    "Eq. 1, centered captions": {"top_k": (4, 8, 16, 32), "image_weight": (0.0, 0.1, 0.25, 0.5),
                                 "text_weight": (0.0, 0.05, 0.1, 0.25)},
    "Eq. 1, captions across the gap": {"top_k": (4, 8, 16, 32), "image_weight": (0.0, 0.1, 0.25, 0.5),
                                       "text_weight": (0.0, 0.05, 0.1, 0.25)},
    "caption vote": {"top_k": (1, 2, 4, 8, 16, 32, 64)},
    "X-MoRe": {"captions": (2, 4, 8, 16, 32, 64)},
    "Tip-Adapter, soft labels": {"alpha": (0.05, 0.25, 0.5, 1.17, 3.0), "beta": (1.0, 5.5, 12.0)},
    "Tip-Adapter, balanced soft labels": {"alpha": (0.05, 0.25, 0.5, 1.17, 3.0), "beta": (1.0, 5.5, 12.0)},
    "TIP-X, balanced soft labels": {"alpha": (0.1, 1.17, 3.0), "beta": (1.0, 5.5, 12.0),
                                    "gamma": (0.1, 1.0)},
    "DN": {"strength": (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)},
    "NNN": {"top_k": (16, 32, 64, 128, 256), "alpha": (0.25, 0.5, 0.75, 1.0)},
    "modality-gap shift": {"strength": (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)},
}


@dataclass(frozen=True)
class Labelled:
    """Labelled queries as features, and what they may be used for.

    Attributes
    ----------
    name : str, goes into every result chosen on it
    role : "tuning" or "test"
    image_features : array (n, d);  labels : int array (n,);  class_features : array (c, d)
    """

    name: str
    role: str
    image_features: np.ndarray
    labels: np.ndarray
    class_features: np.ndarray

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"Unknown role {self.role!r} of {self.name!r}. Known: {', '.join(ROLES)}.")
        if not self.name:
            raise ValueError("Expected a name for the split: results say on what settings were chosen.")

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True)
class Choice:
    """Settings and where they come from.

    Attributes
    ----------
    settings : dict of keyword arguments for the method, such as top_k, image_weight and text_weight
    chosen_on : str, name of the split or of the reference set
    how : str, what was maximized;  score : float, the maximum (a fraction), or NaN where nothing was
    n : int, items it was measured on;  tried : int, settings compared
    optimistic : bool, True where the choice saw the test set
    """

    settings: dict = field(default_factory=dict)
    chosen_on: str = ""
    how: str = ""
    score: float = float("nan")
    n: int = 0
    tried: int = 1
    optimistic: bool = False


DEFAULT = Choice({"top_k": 8, "image_weight": 0.5, "text_weight": 0.05}, "the paper's code, branch main",
                 "default")


def tune(split, reference_image_features, reference_text_features, *, control=None, neighbor_indices=None,
         seed=0, scale="unit", top_ks=TOP_KS, image_weights=WEIGHTS, text_weights=WEIGHTS, optimistic=False):
    """k and weights of Eq. 1 with the highest accuracy on a split, out of a whole grid.

    Parameters
    ----------
    split : Labelled, a tuning split
    reference_…_features : arrays (m, d), as the encoder gave them
    control : a name of `controls.CONTROLS`, optional: tune that control instead, on the same footing
    neighbor_indices : int array (n, max k) of the split's queries, nearest first; searched where not given
    seed : int, of the control;  scale : see `reference.scaled`
    top_ks, image_weights, text_weights : the grid, rising; of equally good settings the first is taken. A k
        above the number of references is left out.
    optimistic : True allows a test set, to show what choosing on it would pretend; never for a result

    Returns
    -------
    choice : Choice with settings top_k, image_weight and text_weight

    Raises
    ------
    ValueError : the split is a test set and `optimistic` isn't said.
    """
    _refuse_test(split, optimistic)
    v, R_img, R_txt = as_scaled(split.image_features, reference_image_features, reference_text_features,
                                scale)
    top_ks = [k for k in top_ks if k <= len(R_img)]
    indices = neighbor_indices
    if indices is None:
        _, indices = Retriever(R_img).search(v, max(top_ks))
    if control is not None:
        R_img, R_txt, indices = changed(control, v, R_img, R_txt, indices, seed=seed)
    table = surface(v, split.labels, split.class_features, R_img, R_txt, indices, top_ks=top_ks,
                    image_weights=image_weights, text_weights=text_weights)
    return _best(table, split.name, "accuracy by labels", optimistic)


def tune_method(split, method, grid, reference_image_features, reference_text_features, *,
                neighbor_indices=None, optimistic=False):
    """The settings of any method of `rivals` with the highest accuracy on a split.

    Parameters
    ----------
    split : Labelled, a tuning split
    method : function with the signature of `rivals`;  grid : dict setting -> values to try, as in GRIDS
    reference_…_features : arrays (m, d)
    neighbor_indices : int array (n, k) of the split's queries, for methods that use neighbors; values of
        the grid that ask for more than k neighbors are left out
    optimistic : as in `tune`

    Returns
    -------
    choice : Choice; of equally good settings the first in the grid's order
    """
    _refuse_test(split, optimistic)
    most = len(reference_image_features) if neighbor_indices is None else np.shape(neighbor_indices)[1]
    grid = {name: [value for value in values if name not in COUNTS or value <= most]
            for name, values in grid.items()}
    best, tried = None, 0
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        scores = method(split.image_features, reference_image_features, reference_text_features,
                        split.class_features, neighbor_indices, **settings)
        reached, tried = float(np.mean(scores.argmax(axis=1) == split.labels)), tried + 1
        if best is None or reached > best[1]:
            best = settings, reached
    if best is None:
        raise ValueError("Expected a grid with at least one value for each setting, got none to try.")
    return Choice(best[0], split.name, "accuracy by labels", best[1], len(split), tried, optimistic)


def tune_methods(tuning, test, methods, reference_image_features, reference_text_features, *, grids=None):
    """Several methods, each tuned on one split (`tune_method`) and scored on the test set.

    Parameters
    ----------
    tuning, test : Labelled, of these roles and without a picture in common
    methods : dict name -> function with the signature of `rivals`
    reference_…_features : arrays (m, d)
    grids : dict name -> grid; by default GRIDS, and of `methods` those that it names

    Returns
    -------
    accuracy : dict name -> fraction of the test pictures that are right
    """
    require_disjoint(tuning, test)
    grids, R = GRIDS if grids is None else grids, (reference_image_features, reference_text_features)
    counts = [value for grid in grids.values() for name in COUNTS for value in grid.get(name, ())]
    before, after = (Retriever(R[0]).search(split.image_features, min(max(counts, default=1), len(R[0])))[1]
                     for split in (tuning, test))

    def reached(name):
        choice = tune_method(tuning, methods[name], grids[name], *R, neighbor_indices=before)
        scores = methods[name](test.image_features, *R, test.class_features, after, **choice.settings)
        return float(np.mean(scores.argmax(axis=1) == test.labels))

    return dict(zip(grids, side_by_side(reached, grids), strict=True))


def tune_label_free(reference_image_features, reference_text_features, *, name="the reference set",
                    scale="unit", top_ks=TOP_KS, image_weights=WEIGHTS, text_weights=WEIGHTS):
    """k and weights of Eq. 1 with which the references find their own captions best; no labels are needed.

    Each reference picture in turn is the query. Its own pair is hidden from the search, Eq. 1 adds its
    neighbors' pictures and captions, and its own caption is looked for among all captions of the set
    (equal captions count as one). No source: this way of choosing is the kit's.

    Parameters
    ----------
    reference_…_features : arrays (m, d), as the encoder gave them;  name : str, of the reference set
    scale, top_ks, image_weights, text_weights : as in `tune`

    Returns
    -------
    choice : Choice; its score is R@1 of the captions
    """
    V, R_img, R_txt = as_scaled(reference_image_features, reference_image_features, reference_text_features,
                                scale)
    top_ks = [k for k in top_ks if k < len(V)]
    if not top_ks:
        raise ValueError(f"Expected more than {len(V)} references: with each pair hidden from itself none of "
                         "the given k is left.")
    _, indices = Retriever(R_img).search(V, max(top_ks), exclude=np.arange(len(V)))
    captions, own = np.unique(unit(reference_text_features), axis=0, return_inverse=True)  # (c, d), (m,)
    table = surface(V, own, captions, R_img, R_txt, indices, top_ks=top_ks, image_weights=image_weights,
                    text_weights=text_weights)
    how = f"R@1 of the own caption among {len(captions)}, each pair hidden from itself"
    return _best(table, name, how, False)


def optimism_table(test, tuning, reference_image_features, reference_text_features, *, label_free=None,
                   scale="unit", top_ks=TOP_KS, image_weights=WEIGHTS, text_weights=WEIGHTS):
    """Eq. 1 on a test set with settings chosen in four ways; the last one, on the test set itself, flatters.

    Parameters
    ----------
    test, tuning : Labelled, of these roles and without a picture in common
    reference_…_features : arrays (m, d)
    label_free : Choice of `tune_label_free`, optional: made here where not given
    scale, top_ks, image_weights, text_weights : as in `tune`

    Returns
    -------
    table : DataFrame indexed by "default", "tuned", "label-free", "best on test": k, image_weight,
        text_weight, chosen_on, how, chosen_score, accuracy (on test), n, difference (to CLIP, a fraction),
        optimistic
    """
    require_disjoint(tuning, test)
    grid = {"scale": scale, "top_ks": top_ks, "image_weights": image_weights, "text_weights": text_weights}
    R_img, R_txt = reference_image_features, reference_text_features
    if label_free is None:
        label_free = tune_label_free(R_img, R_txt, **grid)
    asked = (*top_ks, DEFAULT.settings["top_k"], label_free.settings["top_k"])
    _, indices = Retriever(R_img).search(test.image_features, max(k for k in asked if k <= len(R_img)))
    choices = {"default": DEFAULT, "tuned": tune(tuning, R_img, R_txt, **grid), "label-free": label_free,
               "best on test": tune(test, R_img, R_txt, neighbor_indices=indices, optimistic=True, **grid)}
    return pd.DataFrame([_on_test(test, R_img, R_txt, indices, choice, scale) for choice in choices.values()],
                        index=list(choices))


def require_disjoint(tuning, test):
    """Raise ValueError unless `tuning` and `test` have those roles and share no picture."""
    for split, role in ((tuning, "tuning"), (test, "test")):
        if split.role != role:
            raise ValueError(f"Expected a {role} split, got {split.name!r} with the role {split.role!r}.")
    known = {row.tobytes() for row in np.asarray(test.image_features, np.float32)}
    shared = sum(row.tobytes() in known for row in np.asarray(tuning.image_features, np.float32))
    if shared:
        raise ValueError(f"{shared} of {len(tuning)} pictures of {tuning.name!r} are in the test set "
                         f"{test.name!r} too. Tune on other pictures.")


def _on_test(test, R_img, R_txt, indices, choice, scale):
    scores = eq1(test.image_features, R_img, R_txt, test.class_features, indices, scale=scale,
                 **choice.settings)
    plain = logits(test.image_features, test.class_features)
    reached, base = (float(np.mean(part.argmax(axis=1) == test.labels)) for part in (scores, plain))
    settings = {"k": choice.settings["top_k"], "image_weight": choice.settings["image_weight"],
                "text_weight": choice.settings["text_weight"]}
    return {**settings, "chosen_on": choice.chosen_on, "how": choice.how, "chosen_score": choice.score,
            "accuracy": reached, "n": len(test), "difference": reached - base,
            "optimistic": choice.optimistic}


def _best(table, name, how, optimistic):
    row = table.loc[table["correct"].idxmax()]  # the first of equals
    settings = {"top_k": int(row["k"]), "image_weight": float(row["image_weight"]),
                "text_weight": float(row["text_weight"])}
    return Choice(settings, name, how, float(row["accuracy"]), int(row["n"]), len(table), optimistic)


def _refuse_test(split, optimistic):
    if split.role == "test" and not optimistic:
        raise ValueError(f"{split.name!r} is a test set: settings chosen on it flatter the method. Give a "
                         "tuning split, or say optimistic=True to show by how much.")
