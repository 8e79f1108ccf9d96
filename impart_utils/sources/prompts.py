"""What CLIP is asked about a picture: prompt templates and class names, the paper's and OpenAI's.

OpenAI published the templates and names behind CLIP's own numbers in data/prompts.md of
github.com/openai/CLIP (MIT license), and a general ensemble of seven templates in that repository's notebook
Prompt_Engineering_for_ImageNet.ipynb. CLIP_benchmark and open_clip use the same lists, so their numbers can
be compared with those made here.
"""

from impart_utils.config import NAMES, PROMPTS
from impart_utils.zeroshot import PAPER_TEMPLATE

# "*" stands for "a" in the first half of each list and for "the" in the second
_CIFAR = ("a photo of * {}.", "a blurry photo of * {}.", "a black and white photo of * {}.",
          "a low contrast photo of * {}.", "a high contrast photo of * {}.", "a bad photo of * {}.",
          "a good photo of * {}.", "a photo of * small {}.", "a photo of * big {}.")
_CALTECH = ("a photo of * {}.", "a painting of * {}.", "* plastic {}.", "a sculpture of * {}.",
            "a sketch of * {}.", "a tattoo of * {}.", "* toy {}.", "a rendition of * {}.",
            "* embroidered {}.", "* cartoon {}.", "* {} in a video game.", "* plushie {}.", "* origami {}.",
            "art of * {}.", "graffiti of * {}.", "a drawing of * {}.", "a doodle of * {}.")
GENERAL = ("itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
           "a {} in a video game.", "art of the {}.", "a photo of the small {}.")
_PUBLISHED = {"cifar10": _CIFAR, "cifar100": _CIFAR, "caltech101": _CALTECH}

# Caltech101's published names, where they are more than the folder's name with spaces
_CALTECH_NAMES = {
    "BACKGROUND_Google": "background", "Faces": "off-center face", "Faces_easy": "centered face",
    "Leopards": "leopard", "Motorbikes": "motorbike", "airplanes": "airplane", "car_side": "side of a car",
    "cougar_body": "body of a cougar cat", "cougar_face": "face of a cougar cat",
    "crocodile_head": "head of a crocodile", "flamingo_head": "head of a flamingo",
    "snoopy": "snoopy (cartoon beagle)", "yin_yang": "yin and yang symbol",
}


def templates(prompts, dataset):
    """The templates of a prompt set, with "{}" where the class name goes.

    Parameters
    ----------
    prompts : "paper", one template, or "openai", the published ones: 18 for CIFAR-10 and CIFAR-100, 34 for
        Caltech101; for any other data set the seven general ones that OpenAI found best together
    dataset : str, such as "cifar10", "toy10", "folder:pets"

    Returns
    -------
    templates : tuple of str

    Raises
    ------
    ValueError : an unknown prompt set, or "stored", whose texts only a feature pack has.
    """
    if prompts == "paper":
        return (PAPER_TEMPLATE,)
    if prompts != "openai":
        raise ValueError(_no_such("prompts", prompts, PROMPTS, dataset))
    if dataset not in _PUBLISHED:
        return GENERAL
    return tuple(text.replace("*", article) for article in ("a", "the") for text in _PUBLISHED[dataset])


def class_names(names, dataset, raw):
    """Class names in a form: "raw", as the data set has them, or "clean", as OpenAI published them.

    Parameters
    ----------
    names : "raw" or "clean". For data sets without published names, clean ones have spaces for underscores.
    dataset : str, as for `templates`;  raw : sequence of c str, the data set's own names

    Returns
    -------
    class_names : list of c str

    Raises
    ------
    ValueError : an unknown form, or "stored", which only a feature pack has.
    """
    if names == "raw":
        return list(raw)
    if names != "clean":
        raise ValueError(_no_such("names", names, NAMES, dataset))
    special = _CALTECH_NAMES if dataset == "caltech101" else {}
    return [special.get(name, name.replace("_", " ")) for name in raw]


def described(prompts, dataset):
    """A prompt set in the words of a results row: "a photo of a {}", "openai (18 templates)"."""
    found = templates(prompts, dataset)
    return found[0] if len(found) == 1 else f"{prompts} ({len(found)} templates)"


def _no_such(setting, value, known, dataset):
    if value == "stored":
        return (f"{dataset} has no stored {setting}: only a feature pack has texts of its own. "
                f"Give {setting}={known[0]!r} or {known[1]!r}.")
    return f"Unknown {setting} {value!r}. Known: {', '.join(known)}."
