"""What a run needs and this machine lacks, found before the first notebook starts."""

from dataclasses import dataclass, field
from pathlib import Path

from impart_utils.cached import test_set
from impart_utils.config import MissingInput, full_path, short_name
from impart_utils.gallery import load_gallery
from impart_utils.sources import checkpoints, datasets, features
from impart_utils.sources.pack_files import read_header

NEEDS = {  # by notebook number; 09 reads results alone
    "00": {"clip", "datasets"}, "01": {"reference", "datasets"}, "02": {"reference", "datasets"},
    "03": {"reference", "datasets"},
    "04": {"reference", "datasets"}, "05": {"reference", "datasets"}, "06": {"reference", "films"},
    "07": {"reference", "datasets"}, "08": {"films"}, "09": set(),
}


def missing_inputs(config, numbers, *, metadata=None):
    """One message for each thing that the notebooks of these numbers need and that isn't here.

    Nothing is downloaded and no model is loaded.

    Parameters
    ----------
    config : Config;  numbers : iterable of str such as "04"
    metadata : path, optional: the list of photos from which notebook 01, the first that needs pairs, builds
        the reference set's folder where it isn't there. Then only this list is needed beforehand.

    Raises
    ------
    ValueError : a setting that names something unknown, or a file that isn't what its name says.
    """
    needed = set().union(*(NEEDS.get(number, set()) for number in numbers))
    found = missing_by_need(config, needed, metadata=metadata if "01" in numbers else None)
    return list(dict.fromkeys(message for messages in found.values() for message in messages))


def missing_by_need(config, needed, *, metadata=None):
    """{"datasets": [message, …], …}: what of each of these needs isn't here (see `missing_inputs`)."""
    clip = [lambda: checkpoints.find_checkpoint(config.clip, config.clip_checkpoint)]
    pictures = [name for name in config.datasets if not name.startswith("pack:")]
    checks = {
        "clip": clip,
        "datasets": [
            *[lambda name=name: test_set(config, name) for name in config.datasets  # with the texts asked for
              if name.startswith("pack:")],
            *(clip if pictures else []),
            *[lambda name=name: datasets.load_dataset(name, config) for name in pictures
              if name not in datasets.TOY],
            lambda: _names_apart(config)],
        "reference": (
            [lambda: features.load_pack(config.reference[5:])] if config.reference.startswith("pack:")
            else [*clip, lambda: _reference_folder(config, metadata)]),
        "films": (
            [lambda: load_gallery(config.films[5:], fps=config.fps)] if config.films.startswith("pack:")
            else [*clip, lambda: _folder(config.films, "", (
                "the films (a folder of clips)", "python -m impart_utils.sources.films --help, or give a "
                "folder of your own with --set films=folder:PATH"))]),
    }
    found = {need: [_message(check) for check in checks[need]] for need in checks if need in needed}
    return {need: [message for message in messages if message] for need, messages in found.items()}


def _message(check):
    try:
        check()
    except (MissingInput, FileNotFoundError) as error:
        return str(error)
    return ""


def require_inputs(config, numbers, *, metadata=None):
    """Raise MissingInput with one message that names all that is missing and how to get each."""
    missing = missing_inputs(config, numbers, metadata=metadata)
    if missing:
        listed = "\n\n".join(f"{number}. {message}" for number, message in enumerate(missing, start=1))
        raise MissingInput(f"The {config.profile} profile can't start, nothing was downloaded. "
                           f"Missing on this machine:\n\n{listed}\n\n"
                           "The demo as it comes needs none of this: ./run_all.sh")


def _names_apart(config):
    """A pack of CIFAR-10 is called cifar10 in results, as the pictures are: one of them only."""
    names = [test_set(config, name).name if name.startswith("pack:") else short_name(name)
             for name in config.datasets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"Expected data sets with different names, got two called {twice!r} in "
                         f"{', '.join(config.datasets)}. Leave one of them out.")


def _reference_folder(config, metadata):
    """The reference set must be here, or else the list of photos that notebook 01 builds it from."""
    if not metadata:
        _folder(config.reference, "captions.csv", (
            "the reference set (a folder with captions.csv)", "python -m impart_utils.reference build "
            "--help, or --only 01 --set metadata=FILE, or give features with --set reference=pack:FILE"))
    elif not full_path(metadata).is_file():
        raise MissingInput(f"There is no file {full_path(metadata)}: the list of photos that metadata names. "
                           "data/README.md says which lists can be read.")


def _folder(setting, file, words):
    kind, _, place = setting.partition(":")
    if kind not in ("toy", "folder"):
        raise ValueError(f"Unknown source {setting!r}. Known: toy, folder:PATH, pack:FILE.")
    if kind == "folder" and not (Path(place) / file).exists():
        what, how = words
        raise MissingInput(f"There is no {Path(place) / file}: {what}. How to get it: {how}.")


# ---- --features DIR: what of a run is in packs -------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a folder of packs gives a run; made by `take_packs`.

    Attributes
    ----------
    settings : dict, the notebooks' parameters datasets, reference and films, where packs serve them
    lacking : dict, need -> why no pack serves it
    told : list of str, lines for the user
    packs : list of dict, what run.json keeps of each pack: file, holds, weights, made_by, hash
    """

    settings: dict = field(default_factory=dict)
    lacking: dict = field(default_factory=dict)
    told: list = field(default_factory=list)
    packs: list = field(default_factory=list)


def take_packs(folder, config, given=()):
    """Settings that take a run's inputs from the packs in a folder, instead of pictures and weights.

    Parameters
    ----------
    folder : Path;  config : Config, as the user's settings give it
    given : names of settings that the user gave: a reference or films of theirs stay

    Returns
    -------
    found : Found. A data set without a pack is left out; one given as "pack:FILE" stays.

    Raises
    ------
    FileNotFoundError : no such folder.  ValueError : no pack of any use in it, two of one thing, of
        different weights, or a damaged one.
    """
    packs, told = packs_in(folder)
    wanted = {"reference": "pairs", "films": "films"}
    wanted = {need: holds for need, holds in wanted.items() if need not in given}
    places = {holds: f"pack:{pack['path']}" for holds, pack in packs.items()}
    settings = {need: places[holds] for need, holds in wanted.items() if holds in packs}
    lacking = {need: f"no pack of {holds} in {folder}" for need, holds in wanted.items()
               if holds not in packs}
    names = {name: name if name.startswith("pack:") else places.get(short_name(name))
             for name in config.datasets}
    absent = [short_name(name) for name, place in names.items() if place is None]
    if len(absent) < len(names):
        settings["datasets"] = ",".join(place for place in names.values() if place)
        told += [f"{name}: no pack, left out" for name in absent]
    else:
        lacking["datasets"] = f"no pack of {', '.join(absent)} in {folder}"
    if not settings:
        raise ValueError(f"No pack in {folder} serves this run: {'; '.join([*lacking.values(), *told])}. "
                         "data/README.md says how to make packs.")
    used = [holds for holds, place in places.items() if place in (*names.values(), *settings.values())]
    kept = [{"file": packs[holds]["path"].name, "holds": holds,
             **{key: packs[holds][key] for key in ("weights", "made_by", "hash")}} for holds in used]
    _require_one_model(folder, kept)
    made = [f"{row['holds']}: {row['file']}, made by {row['made_by'] or 'another program'}" for row in kept]
    return Found(settings, lacking, made + told, kept)


def packs_in(folder):
    """The packs in a folder: (dict, what each holds -> its path, weights, made_by, hash; lines on the rest).

    A pack of the kit's says itself what it holds: a data set's name, "pairs" or "films". Any other is known
    by its file's name: cifar10_anything.npz is of CIFAR-10, pairs_anything.npz of pairs.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Give --features the folder of the packs.")
    own, others, told = {}, {}, []
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in (".safetensors", ".npz") or path.name.startswith("."):
            continue
        header = read_header(path) if path.suffix == ".safetensors" else None
        holds, is_own = _holds(path, header)
        kind = own if is_own else others
        if not holds:
            told.append(f"{path.name}: left out, neither header nor name says that it is a pack for a run")
        elif holds in kind:
            raise ValueError(f"Two packs in {folder} hold {holds}: {kind[holds]['path'].name} and "
                             f"{path.name}. Move one of them away.")
        else:
            header = header or {}
            kind[holds] = {"path": path, "weights": header.get("model", header.get("weights", "")),
                           "made_by": header.get("made_by", ""), "hash": header.get("hash", "")}
    return {**others, **own}, told


def _holds(path, header):
    """(what a file holds: a data set's name, "pairs", "films" or ""; whether the kit made it)."""
    if header == {}:  # safetensors, but no pack
        return "", False
    if header and header.get("made_by") and header.get("protocol", {}).get("dataset"):
        return header["protocol"]["dataset"], True
    stem = path.stem.split("_")[0]
    return stem if stem in (*datasets.TITLES, "pairs") else "", False


def _require_one_model(folder, packs):
    weights = {row["weights"]: row["file"] for row in packs if row["made_by"]}
    if len(weights) > 1:
        told = "; ".join(f"{file}: {name}" for name, file in weights.items())
        raise ValueError(f"The packs in {folder} come from different weights, so that cosines between them "
                         f"mean nothing: {told}. Make them anew with the same CLIP.")


def reasons_to_skip(config, numbers, lacking):
    """{notebook number: why it can't run}, for a run from packs; empty where all can.

    Parameters
    ----------
    config : Config with the packs' settings;  numbers : iterable of str;  lacking : as `Found` has it
    """
    needs = {number: NEEDS.get(number, set()) for number in numbers}
    missing = missing_by_need(config, set().union(*needs.values()) - set(lacking))
    missing.update({need: [reason] for need, reason in lacking.items()})
    reasons = {number: [message for need in sorted(needs[number]) for message in missing.get(need, [])]
               for number in needs}
    return {number: " ".join(messages) for number, messages in reasons.items() if messages}
