"""Zero-shot classification: prompts -> class features -> predictions -> accuracy."""

import numpy as np

PAPER_TEMPLATE = "a photo of a {}"  # the paper's code: one template, no full stop, class names as they are


def class_features(encode_texts, class_names, templates=(PAPER_TEMPLATE,)):
    r"""One unit vector per class: the normalized mean of its unit prompt features.

    .. math:: W_c = n\Big(\frac{1}{T} \sum_t n(\mathrm{text}(t(c)))\Big), \quad n(x) = x / \lVert x \rVert

    Parameters
    ----------
    encode_texts : callable, list of str -> array (·, d)
    class_names : list of c str
    templates : sequence of str with "{}" where the name goes, or one such string

    Returns
    -------
    class_features : array (c, d), unit rows. Source: prompt ensembling, Radford et al. 2021, Sec. 3.1.4.
    """
    templates = [templates] if isinstance(templates, str) else list(templates)
    class_names = list(class_names)
    if not class_names or not templates:
        raise ValueError(f"Expected at least one class name and one template, got {len(class_names)} names "
                         f"and {len(templates)} templates.")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"Expected '{{}}' in each template, for the class name; got {template!r}.")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    features = unit(encode_texts(prompts)).reshape(len(class_names), len(templates), -1)  # (c, t, d)
    return unit(features.mean(axis=1))  # (c, t, d) -> (c, d)


def logits(image_features, class_features, *, scale=100.0):
    """`scale` times the cosine of each picture with each class; 100 is trained CLIP's own scale.

    Parameters
    ----------
    image_features : array (n, d);  class_features : array (c, d). Any norms: both are normalized here.

    Returns
    -------
    logits : array (n, c); classes with equal vectors have equal logits, to the bit
    """
    v, W = np.asarray(image_features), np.asarray(class_features)
    if v.ndim != 2 or W.ndim != 2 or v.shape[1] != W.shape[1]:
        raise ValueError(f"Expected image_features (n, d) and class_features (c, d) with one d, "
                         f"got {v.shape} and {W.shape}. Encode both with the same model.")
    W = unit(W, "class_features")
    scores, first = scale * unit(v, "image_features") @ W.T, {}  # (n, d) @ (d, c) -> (n, c)
    # a matrix product may round a column at its edge otherwise than its equal further in
    columns = [first.setdefault(row.tobytes(), c) for c, row in enumerate(W)]
    return scores if len(first) == len(W) else scores[:, columns]


def predict(image_features, class_features):
    """The class with the highest cosine for each picture; of equal ones the first.

    Parameters
    ----------
    image_features : array (n, d);  class_features : array (c, d)

    Returns
    -------
    predictions : int array (n,), rows of class_features
    """
    return logits(image_features, class_features).argmax(axis=1)


def accuracy(predictions, labels):
    """Share of right predictions, from 0 to 1 ("micro": each picture counts the same)."""
    return float(np.mean(_correct(predictions, labels)))


def mean_per_class_accuracy(predictions, labels):
    """Mean over the classes that occur of the accuracy within the class (each class counts the same)."""
    correct, labels = _correct(predictions, labels), np.asarray(labels)
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _correct(predictions, labels):
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape or not len(labels):
        raise ValueError(f"Expected predictions and labels of one shape (n,) with n >= 1, "
                         f"got {predictions.shape} and {labels.shape}.")
    return predictions == labels


def unit(features, name="features"):
    """A copy of `features` (…, d) with rows of length 1; ValueError where a row is zero or not finite."""
    features = np.asarray(features)
    if not np.issubdtype(features.dtype, np.floating) or features.dtype == np.float16:
        features = features.astype(np.float32)  # half precision has too few digits for a norm
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])
        raise ValueError(f"Row {row} of {name} is zero or not finite (NaN or infinity): it has no direction. "
                         "Encode that item again or leave it out.")
    return features / norms
