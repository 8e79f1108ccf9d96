"""Is a loaded CLIP OpenAI's ViT-B/32? Cosines it must reproduce, whatever file its weights came from.

A checkpoint's names and shapes don't tell which weights they are, nor whether the activation function is
CLIP's quick GELU. What the model computes does. The tables below hold numbers only, no vectors. They were
computed in double precision from OpenAI ViT-B/32 features published by others (the project's shared test
data): TEXT_COSINES from `text_vocab_vitb32` (fp16, its names are those of LVIS; Apache-2.0), CIFAR_COSINES
from `cifar10_test500_vitb32` (fp32). tests/test_clip_checks.py computes them again.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAMES = ("bird", "cat", "dog", "guitar", "horse", "kitten", "microscope", "rabbit", "sofa", "zebra")
PROMPTS = tuple(f"a photo of a {name}" for name in NAMES)
TEXT_COSINES = (  # row i: prompt i with prompts i+1 to 9
    (0.8976, 0.8995, 0.8308, 0.8888, 0.8567, 0.7698, 0.8841, 0.7323, 0.7383),
    (0.9309, 0.8348, 0.8934, 0.9479, 0.7744, 0.8905, 0.7522, 0.7612),
    (0.8317, 0.9150, 0.8761, 0.7936, 0.8893, 0.7762, 0.7436),
    (0.8307, 0.8020, 0.7755, 0.7997, 0.7717, 0.6841),
    (0.8392, 0.7745, 0.8583, 0.7564, 0.7889),
    (0.7388, 0.8601, 0.7090, 0.7350),
    (0.7321, 0.6993, 0.6436),
    (0.7280, 0.7470),
    (0.6397,),
)
CIFAR_COSINES = (  # row i: CIFAR-10 test picture i with pictures i+1 to 9
    (0.7350, 0.7828, 0.7443, 0.7193, 0.8520, 0.7344, 0.8386, 0.8618, 0.7141),
    (0.8720, 0.7425, 0.6960, 0.7177, 0.7747, 0.7102, 0.6977, 0.7637),
    (0.7304, 0.6905, 0.7325, 0.7913, 0.7695, 0.7511, 0.7886),
    (0.7260, 0.7705, 0.7067, 0.7255, 0.7195, 0.7047),
    (0.8190, 0.6659, 0.7727, 0.7162, 0.6923),
    (0.7226, 0.8598, 0.8677, 0.7320),
    (0.7514, 0.7241, 0.8606),
    (0.8533, 0.7237),
    (0.7001,),
)
# Rounding to fp16 moves such cosines by about 1e-4, bf16 by up to 1e-3 (ViT-B/32's sizes, random weights)
TEXT_TOLERANCE = 5e-3
CIFAR_TOLERANCE = 1e-2  # pictures are resized on the way, which libraries do a little differently
SAMPLE_TOLERANCE = 1e-3  # 1 - cosine


@dataclass(frozen=True)
class Check:
    """How far a CLIP is from OpenAI's in one respect.

    Attributes
    ----------
    what : str;  largest : float, the largest difference in cosine, and `where` it is;  tolerance : float
    """

    what: str
    largest: float
    where: str
    tolerance: float

    @property
    def passed(self):
        return self.largest <= self.tolerance  # NaN is not

    def __str__(self):
        return (f"{'ok' if self.passed else 'FAILED'}: {self.what}: largest difference {self.largest:.4f} "
                f"({self.where}), allowed {self.tolerance:g}")


def check_texts(encode_texts, *, tolerance=TEXT_TOLERANCE):
    """Compare the 45 cosines between ten prompts "a photo of a NAME" with those of OpenAI's ViT-B/32.

    Parameters
    ----------
    encode_texts : callable, list of str -> array (·, d), such as ``clip.encode_texts``

    Returns
    -------
    check : Check
    """
    return _compare(encode_texts(list(PROMPTS)), TEXT_COSINES, NAMES, "45 cosines of ten texts", tolerance)


def check_cifar_pictures(image_features, *, tolerance=CIFAR_TOLERANCE):
    """Compare the 45 cosines between CIFAR-10's test pictures 0 to 9 with those of OpenAI's ViT-B/32.

    Parameters
    ----------
    image_features : array (10, d), of these pictures in this order, with any norms
    """
    names = [f"picture {number}" for number in range(10)]
    return _compare(image_features, CIFAR_COSINES, names, "45 cosines of CIFAR-10's test pictures 0 to 9",
                    tolerance)


def _compare(features, expected, names, what, tolerance):
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) != len(names):
        raise ValueError(f"Expected features of shape ({len(names)}, d) for the {what}, "
                         f"got {features.shape}.")
    with np.errstate(invalid="ignore"):  # a row of zeros gives NaN, which fails
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        found = features @ features.T  # (10, 10)
    first, second = np.triu_indices(len(names), 1)
    differences = np.abs(found[first, second] - np.concatenate(expected))  # (45,)
    worst = int(np.argmax(differences))  # the first NaN, where there is one
    where = f"{names[first[worst]]} and {names[second[worst]]}"
    return Check(what, float(differences[worst]), where, tolerance)


def check_samples(encode_images, samples, folder, *, tolerance=SAMPLE_TOLERANCE):
    """Compare features of the paper's own pictures dog.jpg and car.jpg with those its code stored.

    The pictures are in the paper's repository only, which has no licence; who has them can check the
    whole way from a picture file to a feature.

    Parameters
    ----------
    encode_images : callable, list of PIL images -> array (·, d)
    samples : path of clip_vitb32_samples.npz (`image_raw` (2, d), `image_names`, `image_sha256`)
    folder : path of the folder with the pictures

    Raises
    ------
    ValueError : a picture that isn't the paper's, by its SHA-256, or an .npz that holds something else.
    """
    from PIL import Image

    with np.load(samples, allow_pickle=False) as file:
        if missing := {"image_raw", "image_names", "image_sha256"} - set(file.files):
            raise ValueError(f"{samples} has no {', '.join(sorted(missing))}. "
                             "Expected clip_vitb32_samples.npz.")
        stored, names, hashes = file["image_raw"], file["image_names"], file["image_sha256"]
    contents = [(Path(folder) / name).read_bytes() for name in names]
    for name, content, sha256 in zip(names, contents, hashes, strict=True):
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise ValueError(f"{Path(folder) / name} isn't the picture whose features {Path(samples).name} "
                             f"holds: its SHA-256 begins {found[:12]}, expected {sha256[:12]}. Take it from "
                             "the paper's repository as it is.")
    pictures = [Image.open(io.BytesIO(content)) for content in contents]
    features = np.asarray(encode_images(pictures), np.float64)  # (2, d)
    if features.shape != stored.shape:
        raise ValueError(f"Expected features of shape {stored.shape}, as {Path(samples).name} holds them, "
                         f"got {features.shape}.")
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(stored, axis=1)
    differences = 1 - (features * stored).sum(axis=1) / norms  # (2,)
    worst = int(np.argmax(differences))
    return Check("cosines to the paper's stored features", float(differences[worst]), str(names[worst]),
                 tolerance)


def with_verdict(provenance, encode_texts, *, official):
    """What is said of a ViT-B/32's origin, with what `check_texts` finds.

    Parameters
    ----------
    provenance : str, whose weights these are, in words
    encode_texts : callable of the model in fp32 on the CPU, so that the words are the same on each machine
    official : bool, the file has OpenAI's own hash

    Raises
    ------
    ValueError : OpenAI's own weights don't give OpenAI's features.
    """
    check = check_texts(encode_texts)
    if official and not check.passed:
        raise ValueError(f"The weights are those of {provenance}, but their features are not: {check}. "
                         "Something of this installation is broken; install clip and torch anew.")
    if official:
        return provenance
    if check.passed:
        return f"{provenance}; the {check.what} agree with OpenAI's"
    return f"{provenance}; its texts differ from OpenAI's by up to {check.largest:.2f} in cosine"
