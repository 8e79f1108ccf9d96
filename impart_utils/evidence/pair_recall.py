"""Picture to caption and back among image-text pairs: does retrieval help where there are no classes?"""

import numpy as np

from impart_utils.evidence.metrics import ranks, recall_at
from impart_utils.reference import keeps_norms, scaled, split, vanilla_features
from impart_utils.retrieval import Retriever
from impart_utils.sources.files import progress_bar
from impart_utils.zeroshot import logits


def pair_recall(pairs, *, seeds=range(5), references=100, training=300, held_out=100, top_k=8,
                image_weight=0.5, text_weight=0.05, scale=None, configurations=("paper_code", "branch"),
                progress=True):
    """Recall of each held-out pair's caption from its picture, and of its picture from its caption.

    A seed divides the pairs into references, training pairs and held-out pairs, and trains RAM. Captions are
    plain CLIP features throughout, as in the paper; the pictures are CLIP's, Eq. 1's and RAM's, with the same
    neighbors.

    Parameters
    ----------
    pairs : ReferenceSet
    seeds : iterable of int, each a division and a training of its own
    references, training, held_out : int, pairs of each kind
    top_k, image_weight, text_weight : of Eq. 1 (with unit vectors); RAM has the same neighbors
    scale : "raw" or "unit", vectors that RAM gets (see `reference.scaled`); None: raw where norms survive
    configurations : names of `training.CONFIGURATIONS`

    Returns
    -------
    table : DataFrame, a row per seed, method, direction ("picture to caption" or "caption to picture") and k
        (1, 5): recall (a fraction), n (queries). RAM's method is "RA-CLIP (RAM), CONFIGURATION".

    Raises
    ------
    ValueError : fewer pairs than asked for.
    """
    import pandas as pd

    if references + training + held_out > len(pairs):
        raise ValueError(f"Expected references + training + held_out <= pairs, got {references} + {training} "
                         f"+ {held_out} with {len(pairs)} pairs. Lower one of them.")
    if scale is None:
        raw = keeps_norms(pairs.image_features) and keeps_norms(pairs.text_features)
        scale = "raw" if raw else "unit"
    rows = []
    for seed in progress_bar(list(seeds), description="recall of pairs (seeds)", progress=progress):
        memory, rest = split(pairs, references, seed=seed)
        trained_on = rest.take(np.arange(training))
        queries = rest.take(np.arange(training, training + held_out))
        _, indices = Retriever(memory.image_features).search(queries.image_features, top_k)
        pictures = {"CLIP": queries.image_features, "RA-CLIP Vanilla": vanilla_features(
            queries.image_features, memory, neighbor_indices=indices, image_weight=image_weight,
            text_weight=text_weight)}
        for name in configurations:
            pictures[f"RA-CLIP (RAM), {name}"] = _by_ram(
                name, trained_on, memory, queries, indices, scale, seed)
        rows += [{"seed": seed, "method": method, **row} for method, features in pictures.items()
                 for row in _recalls(features, queries.text_features)]
    return pd.DataFrame(rows)


def _by_ram(name, training, memory, queries, indices, scale, seed):
    """The queries' pictures after a RAM that was trained for them: (n, d)."""
    from impart_utils.ram_jobs import one_thread
    from impart_utils.ram_variants import configuration, parts
    from impart_utils.training import apply_ram, new_ram, train_ram

    options, settings = parts(configuration(name))
    _, near = Retriever(memory.image_features).search(training.image_features, indices.shape[1])
    v, R_img, R_txt = scaled(training.image_features, memory, scale)
    with one_thread():  # the same bits on however many cores
        ram = new_ram(v.shape[1], seed=seed, **options)
        train_ram(ram, v, training.text_features, R_img, R_txt, near, seed=seed, progress=False, **settings)
        return apply_ram(ram, *scaled(queries.image_features, memory, scale), indices)


def _recalls(image_features, text_features):
    """Recall both ways of pairs (n, d), (n, d): row i of both belong together."""
    scores, own = logits(image_features, text_features), np.arange(len(image_features))  # (n, n)
    return [{"direction": direction, "k": k, "recall": recall_at(ranks(table, own), k), "n": len(own)}
            for direction, table in (("picture to caption", scores), ("caption to picture", scores.T))
            for k in (1, 5)]
