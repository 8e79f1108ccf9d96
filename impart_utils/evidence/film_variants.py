"""Ways to search films: plain CLIP, Eq. 1 on frames, on films or on the query, and NNN; queries of all kinds.

The paper says its video search is RA-CLIP Vanilla; its code uses plain CLIP for frames and queries. Eq. 1 can
enter at three places, and all three are here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from impart_utils.film_scores import MEANS, POOLINGS, cosines, hub_bias, pool, score_films
from impart_utils.reference import vanilla_features
from impart_utils.retrieval import Retriever

VARIANTS = ("CLIP", "Eq. 1 on frames", "Eq. 1 on films", "Eq. 1 on the query", "NNN")


@dataclass(frozen=True)
class FilmQueries:
    """Queries of one kind.

    Attributes
    ----------
    kind : str, what tables call them;  modality : "text" or "picture"
    features : float array (q, d);  films : int array (q,), the right film of each
    kept : list of q index arrays or None
        Which frames of its own film a query may be found by: a held-out frame must not find itself. The
        other films keep all theirs. None: all.
    """

    kind: str
    modality: str
    features: np.ndarray
    films: np.ndarray
    kept: list | None = None

    def __post_init__(self):
        if self.modality not in ("text", "picture"):
            raise ValueError(f"Unknown modality {self.modality!r}. Known: text, picture.")
        for name, rows in (("films", self.films), ("kept", self.kept)):
            if rows is not None and len(rows) != len(self.features):
                raise ValueError(f"Expected {name} for each of {len(self.features)} queries, "
                                 f"got {len(rows)}.")


@dataclass(frozen=True)
class Variant:
    """A way to search, made by `make_variants`.

    Attributes
    ----------
    films : list of arrays (f, d), the films' frames as this way has them
    score : callable ``(query features (q, d), modality, films, how, **pooling)`` -> similarities (q, films)
    poolings : those of film_scores.POOLINGS that it knows
    """

    films: list
    score: Callable
    poolings: tuple = POOLINGS

    def similarities(self, queries, how="mean_raw", **pooling):
        """Similarities (q, n) of `FilmQueries` with all films, each with its own film as it `kept` it."""
        table = self.score(queries.features, queries.modality, self.films, how, **pooling)
        if queries.kept is None:
            return table
        table = table.copy()
        for row, (film, kept) in enumerate(zip(queries.films, queries.kept, strict=True)):
            own = self.score(queries.features[row:row + 1], queries.modality, [self.films[film][kept]], how,
                             **pooling)
            table[row, film] = own[0, 0]
        return table


def make_variants(films, references, *, top_k=8, image_weight=0.5, text_weight=0.05, hub_top_k=16, alpha=0.75,
                  names=VARIANTS):
    """The ways to search as a dict name -> `Variant`.

    - "CLIP": frames and query as CLIP gives them (the paper's code).
    - "Eq. 1 on frames": each frame plus its neighbors, before pooling.
    - "Eq. 1 on films": each film's mean plus the mean's neighbors, after it; only for the two means. Eq. 1 is
      linear: this differs from the one before only in whose neighbors are picked.
    - "Eq. 1 on the query": a picture as in the paper; a text with its nearest captions as neighbors.
    - "NNN": CLIP less `film_scores.hub_bias`, by captions for texts and reference pictures for pictures.

    Parameters
    ----------
    films : list of arrays (f, d);  references : reference.ReferenceSet, by the same CLIP
    top_k, image_weight, text_weight : of Eq. 1, on unit vectors
    hub_top_k, alpha : of NNN;  names : which to make
    """
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"Unknown variant {unknown[0]!r}. Known: {', '.join(VARIANTS)}.")
    settings = {"top_k": top_k, "image_weight": image_weight, "text_weight": text_weight}

    def augment(features, modality="picture"):
        if modality == "picture":
            return vanilla_features(features, references, **settings)
        _, indices = Retriever(references.text_features).search(features, top_k)
        return vanilla_features(features, references, neighbor_indices=indices, image_weight=image_weight,
                                text_weight=text_weight)

    def clip(features, modality, films, how, **pooling):
        return score_films(features, films, how, **pooling)

    def on_films(features, modality, films, how, **pooling):
        return cosines(features, augment(np.stack([pool(frames, how) for frames in films])))

    def on_query(features, modality, films, how, **pooling):
        return score_films(augment(features, modality), films, how, **pooling)

    def nnn(features, modality, films, how, **pooling):
        others = references.text_features if modality == "text" else references.image_features
        bias = hub_bias(others, films, how, top_k=hub_top_k, alpha=alpha, **pooling)
        return score_films(features, films, how, **pooling) - bias

    ways = {"CLIP": lambda: Variant(films, clip), "NNN": lambda: Variant(films, nnn),
            "Eq. 1 on frames": lambda: Variant([augment(frames) for frames in films], clip),
            "Eq. 1 on films": lambda: Variant(films, on_films, MEANS),
            "Eq. 1 on the query": lambda: Variant(films, on_query)}
    return {name: ways[name]() for name in names}
