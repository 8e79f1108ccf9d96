"""Do the references give test pictures away? Copies of test pictures among them, found in two ways.

CLIP's cosine finds crops and mirror images too, but takes look-alikes for copies; a hash of the pixels hardly
ever does, but only finds copies that were saved again, shrunk or made brighter. The last word has the eye.
"""

import io

import numpy as np
import pandas as pd

from impart_utils import cached
from impart_utils.evidence.metrics import wilson
from impart_utils.retrieval import Retriever
from impart_utils.sources import datasets
from impart_utils.sources.features import encode_to_cache

SIDE = 16  # a hash has SIDE² - 1 bits
# Measured on samples of Caltech101 and CIFAR-10: a picture saved again, at its size or half of it, differs in
# up to 32 of 255 bits, 95 of 100 in up to 20; twins that Caltech101 holds in 0 to 32; other pictures in 36 or
# more (stop signs, motorbikes from the side), mostly over 86. Scenes of the toy world differ in 32 or more.
MAX_BITS = 28


# ---- Copies by their pixels ----------------------------------------------------------------------------


def perceptual_hash(pictures):
    """What a picture looks like from afar: signs of its lowest frequencies, against their median.

    Parameters
    ----------
    pictures : list of n PIL images or uint8 arrays (h, w) or (h, w, 3), of any size

    Returns
    -------
    hashes : bool array (n, 255). Source: pHash (Zauner 2010), here with 16 x 16 frequencies of 32 x 32 grays.
    """
    from PIL import Image
    from scipy.fft import dctn

    hashes = np.empty((len(pictures), SIDE**2 - 1), bool)
    for row, picture in enumerate(pictures):
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
        gray = picture.convert("L").resize((2 * SIDE, 2 * SIDE), Image.Resampling.BOX)
        low = dctn(np.asarray(gray, np.float64), norm="ortho")[:SIDE, :SIDE].ravel()[1:]  # [0]: the mean gray
        hashes[row] = low > np.median(low)
    return hashes


def nearest_hash(hashes, reference_hashes):
    """The reference with the fewest different bits.

    Parameters
    ----------
    hashes : bool array (n, b);  reference_hashes : bool array (m, b)

    Returns
    -------
    fewest_bits, rows : int64 arrays (n,): the different bits, and the reference that has so few
    """
    signs, reference_signs = (2.0 * np.asarray(block, np.float32) - 1 for block in (hashes, reference_hashes))
    fewest_bits, rows = np.empty(len(signs), np.int64), np.empty(len(signs), np.int64)
    for start in range(0, len(signs), 1000):
        part = slice(start, start + 1000)
        agreement = signs[part] @ reference_signs.T  # (·, m): b minus twice the different bits, exact
        rows[part] = agreement.argmax(axis=1)
        fewest_bits[part] = (signs.shape[1] - agreement.max(axis=1)) / 2
    return fewest_bits, rows


def hashes_of_test(config, name, ids):
    """`perceptual_hash` of a test set's pictures, cached: bool (n, 255); None for a pack of features.

    Parameters
    ----------
    config : config.Config;  name : str, as for `cached.test_set`;  ids : list of n str, the set's own
    """
    if name.startswith("pack:"):
        return None
    dataset = datasets.load_dataset(name, config)
    return _hashes(config, f"{dataset.name}-test", dataset.items(), ids, dataset.key)


def hashes_of_references(config, references):
    """`perceptual_hash` of a reference set's pictures, cached: bool (m, 255); None for a pack of features."""
    kind, ids = config.reference.partition(":")[0], references.ids
    if kind == "pack":
        return None
    if kind == "toy":  # drawn all at once
        items = list(zip(ids, cached.pictures_of(config, ids), strict=True))
    else:  # opened one after the other
        items = [(name, lambda name=name: cached.pictures_of(config, [name])[0]) for name in ids]
    return _hashes(config, "references", items, ids, references.key)


def _hashes(config, name, items, ids, key):
    found, known, _ = encode_to_cache(perceptual_hash, items, config.cache_dir / f"hashes-{name}",
                                      key=f"dct {SIDE} {key}", batch_size=256)
    place = {item: row for row, item in enumerate(known)}
    return found[[place[item] for item in ids]] > 0.5


# ---- Copies by both detectors --------------------------------------------------------------------------


def similarity_threshold(reference_image_features, *, share=0.01):
    """The cosine that only `share` of the references have with another reference: unusually alike.

    No test picture plays a part. The references are taken for different pictures; a series of nearly equal
    ones among them raises the threshold.
    """
    own = np.arange(len(reference_image_features))
    similarities, _ = Retriever(reference_image_features).search(reference_image_features, 1, exclude=own)
    return float(np.quantile(similarities, 1 - share))


def near_duplicates(image_features, reference_image_features, *, min_similarity, hashes=None,
                    reference_hashes=None, max_bits=MAX_BITS):
    """The nearest reference of each test picture, and whether it may be a copy.

    Parameters
    ----------
    image_features : array (n, d);  reference_image_features : array (m, d)
    min_similarity : float, cosine from which a picture is flagged, such as `similarity_threshold`'s
    hashes, reference_hashes : bool arrays (n, b) and (m, b), or None where pictures aren't at hand
    max_bits : int, different bits up to which a picture is flagged

    Returns
    -------
    table : DataFrame with a row per test picture: reference, the nearest by cosine, its similarity and
        bits_apart, by_similarity; hash_reference, the nearest by hash, fewest_bits, by_hash; flagged, by
        either. Without hashes bits are NaN, hash_reference is -1 and by_hash False.
    """
    similarities, nearest = Retriever(reference_image_features).search(image_features, 1)
    table = pd.DataFrame({"reference": nearest[:, 0], "similarity": similarities[:, 0], "bits_apart": np.nan,
                          "by_similarity": similarities[:, 0] >= min_similarity, "hash_reference": -1,
                          "fewest_bits": np.nan, "by_hash": False})
    if hashes is not None and reference_hashes is not None:
        table["bits_apart"] = (hashes != reference_hashes[nearest[:, 0]]).sum(axis=1)
        table["fewest_bits"], table["hash_reference"] = nearest_hash(hashes, reference_hashes)
        table["by_hash"] = table["fewest_bits"] <= max_bits
    table["flagged"] = table["by_similarity"] | table["by_hash"]
    return table


def flag_counts(tables):
    """`near_duplicates` in one line per test set.

    Parameters
    ----------
    tables : dict name -> DataFrame of `near_duplicates`

    Returns
    -------
    counts : DataFrame indexed by name: pictures, median and largest similarity, fewest bits, and how many are
        flagged by similarity, by hash, by both
    """
    return pd.DataFrame.from_dict({name: {
        "pictures": len(table), "median similarity": table["similarity"].median(),
        "largest similarity": table["similarity"].max(), "fewest bits": table["fewest_bits"].min(),
        "by similarity": int(table["by_similarity"].sum()), "by hash": int(table["by_hash"].sum()),
        "by both": int((table["by_similarity"] & table["by_hash"]).sum())}
        for name, table in tables.items()}, orient="index")


def accuracy_without(flagged, labels, predictions):
    """Accuracy on all test pictures, without the flagged ones, and on those alone.

    Parameters
    ----------
    flagged : bool array (n,);  labels : int array (n,)
    predictions : dict method -> int array (n,)

    Returns
    -------
    table : DataFrame with method, pictures ("all", "not flagged", "flagged"), n, correct, accuracy, low, high
        (95 % Wilson); a part without pictures is left out
    """
    flagged, rows = np.asarray(flagged, bool), []
    parts = {"all": np.ones_like(flagged), "not flagged": ~flagged, "flagged": flagged}
    for method, predicted in predictions.items():
        right = np.asarray(predicted) == np.asarray(labels)
        for part, kept in parts.items():
            if n := int(kept.sum()):
                correct = int(right[kept].sum())
                low, high = wilson(correct, n)
                rows.append({"method": method, "pictures": part, "n": n, "correct": correct,
                             "accuracy": correct / n, "low": low, "high": high})
    return pd.DataFrame(rows)


# ---- Do the detectors work? Copies planted on purpose --------------------------------------------------


def copies(picture):
    """The copies of a PIL picture that people make: dict, what was done -> PIL image."""
    from PIL import Image, ImageEnhance, ImageOps

    picture, saved = picture.convert("RGB"), io.BytesIO()
    picture.save(saved, "JPEG", quality=50)
    width, height = picture.size
    edge_x, edge_y = round(0.05 * width), round(0.05 * height)
    return {"as it is": picture, "saved as JPEG, quality 50": Image.open(saved),
            "shrunk to half": picture.resize((width // 2, height // 2), Image.Resampling.BICUBIC),
            "30 % brighter": ImageEnhance.Brightness(picture).enhance(1.3), "gray": picture.convert("L"),
            "5 % cut at each edge": picture.crop((edge_x, edge_y, width - edge_x, height - edge_y)),
            "mirrored": ImageOps.mirror(picture)}


def copies_found(encode_images, pictures, rows, reference_image_features, reference_hashes, *, min_similarity,
                 max_bits=MAX_BITS):
    """Plant `copies` of references among test pictures and see which detector finds them.

    Parameters
    ----------
    encode_images : callable, list of pictures -> array (·, d), the references' own encoder
    pictures : list of PIL images;  rows : int array, which references they are
    the others as for `near_duplicates`

    Returns
    -------
    found : DataFrame indexed by what was done: the share that is flagged, with the right reference, by
        similarity, by hash, by either
    """
    planted, rows, found = [copies(picture) for picture in pictures], np.asarray(rows), {}
    for done in planted[0]:
        altered = [each[done] for each in planted]
        table = near_duplicates(encode_images(altered), reference_image_features,
                                min_similarity=min_similarity, hashes=perceptual_hash(altered),
                                reference_hashes=reference_hashes, max_bits=max_bits)
        by_similarity = table["by_similarity"] & (table["reference"] == rows)
        by_hash = table["by_hash"] & (table["hash_reference"] == rows)
        found[done] = {"by similarity": by_similarity.mean(), "by hash": by_hash.mean(),
                       "by either": (by_similarity | by_hash).mean()}
    return pd.DataFrame.from_dict(found, orient="index")
