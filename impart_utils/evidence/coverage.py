"""Which classes do the references know: by name in captions, by CLIP's eye in pictures; and who gains?"""

import re

import numpy as np
import pandas as pd

from impart_utils.zeroshot import predict, unit


def named_in(captions, class_name):
    """Bool array (m,): the captions that hold a class name, as whole words, in singular or plural."""
    words = re.findall(r"\w+", class_name.replace("_", " ").lower())
    pattern = re.compile(r"\b" + r"\W+".join(map(re.escape, words)) + r"(?:s|es)?\b", re.IGNORECASE)
    return np.array([bool(pattern.search(caption)) for caption in captions], bool)


def class_coverage(class_names, class_features, references):
    """What the references know of each class.

    Parameters
    ----------
    class_names : list of c str;  class_features : array (c, d), of the references' own CLIP
    references : reference.ReferenceSet

    Returns
    -------
    table : DataFrame indexed by class: named, captions that hold its name; called, reference pictures that
        CLIP would call so among these classes (each is called something); nearest_picture, nearest_caption:
        the largest cosine of the class's text with a reference's picture and caption
    """
    W = unit(class_features)  # (c, d)
    called = np.bincount(predict(references.image_features, W), minlength=len(class_names))
    return pd.DataFrame({
        "named": [int(named_in(references.captions, name).sum()) for name in class_names], "called": called,
        "nearest_picture": (W @ unit(references.image_features).T).max(axis=1),
        "nearest_caption": (W @ unit(references.text_features).T).max(axis=1)},
        index=pd.Index(class_names, name="class"))


def gain_by_class(labels, before, after, class_names):
    """Series indexed by class: accuracy after minus before within each class that occurs (a fraction).

    Parameters
    ----------
    labels, before, after : int arrays (n,): right answers and two methods' predictions
    """
    labels = np.asarray(labels)
    change = (np.asarray(after) == labels).astype(float) - (np.asarray(before) == labels)
    gains = pd.Series(change, name="gain").groupby(labels).mean()
    return gains.set_axis(pd.Index([class_names[label] for label in gains.index], name="class"))
