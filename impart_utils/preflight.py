"""What a run needs and this machine lacks, found before the first notebook starts."""

from pathlib import Path

from impart_utils.config import MissingInput
from impart_utils.sources import checkpoints, datasets, features

NEEDS = {  # by notebook number; 09 reads results alone
    "00": {"clip", "datasets"}, "01": {"reference"}, "02": {"reference", "datasets"}, "03": {"reference"},
    "04": {"reference", "datasets"}, "05": {"reference", "datasets"}, "06": {"clip", "reference", "films"},
    "09": set(),
}


def missing_inputs(config, numbers):
    """One message for each thing that the notebooks of these numbers need and that isn't here.

    Nothing is downloaded and no model is loaded.

    Parameters
    ----------
    config : Config;  numbers : iterable of str such as "04"

    Raises
    ------
    ValueError : a setting that names something unknown, or a file that isn't what its name says.
    """
    needed = set().union(*(NEEDS.get(number, set()) for number in numbers))
    names = config.datasets if "datasets" in needed else ()
    packs = [name for name in names if name.startswith("pack:")]
    packs += [config.reference] if "reference" in needed and config.reference.startswith("pack:") else []
    pictures = [name for name in names if not name.startswith("pack:")]
    checks = [lambda name=name: features.load_pack(name.removeprefix("pack:")) for name in packs]
    if "clip" in needed or pictures or ("reference" in needed and not config.reference.startswith("pack:")):
        checks.append(lambda: checkpoints.find_checkpoint(config.clip, config.clip_checkpoint))
    checks += [lambda name=name: datasets.load_dataset(name, config) for name in pictures
               if name not in datasets.TOY]
    if "reference" in needed:
        checks.append(lambda: _folder(config.reference, "captions.csv", (
            "the reference set (a folder with captions.csv)", "python -m impart_utils.reference build "
            "--help, or give features with --set reference=pack:FILE")))
    if "films" in needed:
        checks.append(lambda: _folder(config.films, "", (
            "the films (a folder of clips)", "python -m impart_utils.sources.films --help, or give a folder "
            "of your own with --set films=folder:PATH")))
    missing = []
    for check in checks:
        try:
            check()
        except (MissingInput, FileNotFoundError) as error:
            missing.append(str(error))
    return missing


def require_inputs(config, numbers):
    """Raise MissingInput with one message that names all that is missing and how to get each."""
    missing = missing_inputs(config, numbers)
    if missing:
        listed = "\n\n".join(f"{number}. {message}" for number, message in enumerate(missing, start=1))
        raise MissingInput(f"The {config.profile} profile can't start, nothing was downloaded. "
                           f"Missing on this machine:\n\n{listed}\n\n"
                           "The demo as it comes needs none of this: ./run_all.sh")


def _folder(setting, file, words):
    kind, _, place = setting.partition(":")
    if kind not in ("toy", "pack", "folder"):
        raise ValueError(f"Unknown source {setting!r}. Known: toy, folder:PATH, "
                         "and for references pack:FILE.")
    if kind != "folder":
        return
    if not (Path(place) / file).exists():
        what, how = words
        raise MissingInput(f"There is no {Path(place) / file}: {what}. How to get it: {how}.")
