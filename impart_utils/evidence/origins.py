"""Reference sets of several origins and captions of several kinds, for `curves.named_references`."""

import numpy as np

from impart_utils import cached
from impart_utils.config import MissingInput
from impart_utils.gallery import film_gallery, text_features
from impart_utils.zeroshot import predict


def reference_origins(config, *, least=1):
    """What a profile has to draw references from, besides the test pictures' own kind.

    Parameters
    ----------
    least : int, pairs that an origin must have; smaller ones are left out

    Returns
    -------
    origins : dict, name -> (image_features (m, d), text_features (m, d)): the profile's pairs; in the toy
        world, those of one kind of caption; where the pairs have a title and a description, both apart and
        together as captions of the same pictures; and the films' frames with the film's description, where
        films are here (a twentieth of a film apart, since neighboring frames are one picture)
    """
    pool = cached.pair_pool(config)
    columns, origins = pool.metadata.get("columns", {}), {
        "the profile's pairs": (pool.image_features, pool.text_features)}
    if config.is_toy and "caption_kind" in columns:
        kinds = np.array(columns["caption_kind"])
        rows = {kind: kinds == kind for kind in ("full", "partial", "empty", "wrong")}
        origins |= {f"captions: {kind}": (pool.image_features[some], pool.text_features[some])
                    for kind, some in rows.items()}
    if {"title", "description"} <= set(columns):
        both = [f"{title}. {text}" if title and text else title or text
                for title, text in zip(columns["title"], columns["description"], strict=True)]
        encode = cached.clip(config).encode_texts
        origins |= {f"captions: {name}": (pool.image_features, encode(texts)) for name, texts in (
            ("title", columns["title"]), ("description", columns["description"]), ("both", both))}
    return {name: pairs for name, pairs in (origins | _frames(config)).items() if len(pairs[0]) >= least}


def _frames(config):
    try:
        gallery = film_gallery(config)
    except MissingInput:  # no films on this machine: one origin fewer
        return {}
    described = [film for film, text in enumerate(gallery.descriptions) if text]
    if not described:
        return {}
    frames = [gallery.frame_features[film] for film in described]
    rows = [np.unique(np.linspace(0, len(part) - 1, 20).astype(int)) for part in frames]
    texts = text_features(config, gallery, [gallery.descriptions[film] for film in described])  # (films, d)
    return {"film frames, the film's description": (
        np.concatenate([part[some] for part, some in zip(frames, rows, strict=True)]),
        np.repeat(texts, [len(some) for some in rows], axis=0))}


def like_the_test(tuning):
    """Pictures of the test pictures' kind without labels: CLIP's own guess stands in for a caption.

    Parameters
    ----------
    tuning : tuning.Labelled, whose labels are not used

    Returns
    -------
    origin : (image_features (n, d), text_features (n, d))
    """
    guess = predict(tuning.image_features, tuning.class_features)
    return tuning.image_features, tuning.class_features[guess]
