"""The comparison on real CLIP features: small, exact, and repeatable by anyone who has the four files.

They hold OpenAI's vectors of CIFAR-10 test pictures, Unsplash photos and COCO pairs, found in public
repositories, some of which state no licence: so they are no part of the kit. Every draw is spelled out here,
so that any other program with NumPy's generator gets the same numbers.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.config import MissingInput
from impart_utils.reference import ReferenceSet, from_pack, vanilla_features
from impart_utils.sources.features import load_pack
from impart_utils.zeroshot import accuracy, predict

FILES = ("cifar10_test500_vitb32.npz", "unsplash_photos_vitb32.npz", "text_vocab_vitb32.npz",
         "coco_val2017_500pairs_vitb16.npz")
DRAWS = range(5)  # seeds of np.random.default_rng


def real_features_table(folder):
    """CLIP, Eq. 1 and random neighbors on real features, over five draws of references.

    Parameters
    ----------
    folder : where FILES lie

    Returns
    -------
    table : DataFrame with data, references, method, accuracy and clip (means over the draws), difference
        (mean of accuracy - clip), sd (of the differences, with draws - 1), draws, n. Fractions. On COCO,
        accuracy is R@1 from picture to caption.

    Raises
    ------
    MissingInput : a file isn't there.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise MissingInput(f"There is no {', '.join(missing)} in {folder}. Give the folder that holds "
                           f"{', '.join(FILES)}.")
    cifar, coco = load_pack(folder / FILES[0]), from_pack(load_pack(folder / FILES[3]))
    unsplash = from_pack(load_pack(f"{folder / FILES[1]}+{folder / FILES[2]}"))
    rows = []
    for seed in DRAWS:
        rows += _unsplash(cifar, unsplash, np.random.default_rng(seed))
        rows += _in_domain(cifar, np.random.default_rng(seed))
        rows += _coco(coco, np.random.default_rng(seed))
    return _summary(pd.DataFrame(rows))


def _unsplash(cifar, photos, rng):
    """References: 1000 of 2959 photos, each with the nearest vocabulary name as text; all 500 are queries."""
    references = photos.take(rng.choice(2959, 1000, replace=False))
    random = np.array([rng.choice(1000, 8, replace=False) for _ in range(500)])  # after the references
    ways = {"Eq. 1, unit, 0.5 / 0.05": {},
            "Eq. 1, unit, 0.5 / 0": {"text_weight": 0.0},
            "Eq. 1, mixed, 0.05 / 0.05": {"scale": "mixed", "image_weight": 0.05},
            "Eq. 1, mixed, 0.5 / 0.05": {"scale": "mixed"},
            "8 random references, unit, 0.5 / 0.05": {"neighbor_indices": random}}
    return _measured("CIFAR-10, 500 pictures", "1000 Unsplash photos", cifar.image_features, references,
                     cifar.class_features, cifar.labels, ways)


def _in_domain(cifar, rng):
    """Half of the 500 pictures, with their true class as text, are the references of the other half."""
    first, second = np.split(rng.permutation(500), 2)
    random = rng.integers(0, 250, (250, 8))  # after the split
    labels = cifar.labels[first]
    references = ReferenceSet(cifar.image_features[first], cifar.class_features[labels],
                              [cifar.prompts[label] for label in labels], [str(row) for row in first])
    ways = {"Eq. 1, unit, 0.5 / 0.05": {},
            "8 random references, unit, 0.5 / 0.05": {"neighbor_indices": random}}
    return _measured("CIFAR-10, 250 pictures", "the other 250, true class text", cifar.image_features[second],
                     references, cifar.class_features, cifar.labels[second], ways)


def _coco(pairs, rng):
    """Half of the 500 pairs are references; each picture of the other half looks for its caption there."""
    first, second = np.split(rng.permutation(500), 2)
    held_out = pairs.take(second)
    return _measured("COCO, 250 pairs, picture to caption", "the other 250 pairs", held_out.image_features,
                     pairs.take(first), held_out.text_features, np.arange(250),
                     {"Eq. 1, unit, 0.5 / 0.05": {}})


def _measured(data, source, queries, references, classes, labels, ways):
    clip = accuracy(predict(queries, classes), labels)
    rows = [{"data": data, "references": "none", "method": "CLIP", "accuracy": clip, "clip": clip,
             "n": len(labels)}]
    for method, options in ways.items():
        augmented = vanilla_features(queries, references, top_k=8, **options)
        reached = accuracy(predict(augmented, classes), labels)
        rows.append({"data": data, "references": source, "method": method, "accuracy": reached, "clip": clip,
                     "n": len(labels)})
    return rows


def _summary(rows):
    rows["difference"] = rows["accuracy"] - rows["clip"]
    grouped = rows.groupby(["data", "references", "method"], sort=False)
    return grouped.agg(accuracy=("accuracy", "mean"), clip=("clip", "mean"),
                       difference=("difference", "mean"), sd=("difference", "std"),
                       draws=("difference", "size"), n=("n", "first")).reset_index()
