"""CLIP checkpoints: find, fetch and verify them; the weights' file decides everything that follows."""

import sys
from pathlib import Path

from impart_utils.config import CHECKPOINTS, ROOT, MissingInput
from impart_utils.sources.checkpoint_formats import keep_copy, plain_gelu, read_copy, read_state_dict
from impart_utils.sources.clip_architectures import ARCHITECTURES, TINY, check_architecture, import_clip
from impart_utils.sources.features import file_hash

TINY_PATH = ROOT / "data" / "toy_clip.safetensors"


def named(name_or_path, checkpoint=None):
    """(name, checkpoint): a path in the name's place is a file of weights for ViT-B/32."""
    if checkpoint is None and str(name_or_path).endswith(CHECKPOINTS):
        return "ViT-B/32", str(name_or_path)
    return str(name_or_path), checkpoint


def find_checkpoint(name, checkpoint=None, *, fetch=False):
    """The file with the weights of `name`: the given one, the tiny CLIP's, or the one in clip's own cache.

    Parameters
    ----------
    name : str;  checkpoint : path, optional
    fetch : bool, download OpenAI's file where it isn't there (354 MB for ViT-B/32)

    Raises
    ------
    FileNotFoundError : `checkpoint` was given and isn't there.
    MissingInput : the named model isn't on this machine, or can't be fetched; the message says what to do.
    ValueError : an unknown name.
    """
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint at {path}. Check the path.")
        return path
    if name == TINY:
        if not TINY_PATH.is_file():
            raise FileNotFoundError(f"{TINY_PATH} is missing from this copy of the kit. Restore it, or make "
                                    "it again: python -m impart_utils.toy_world.train_clip")
        return TINY_PATH
    clip = import_clip()
    if name not in clip.available_models():
        raise ValueError(f"Unknown CLIP {name!r}. Known: {TINY}, {', '.join(clip.available_models())}, or "
                         "give the path of a checkpoint.")
    path = clip_cache_path(name)
    if path.is_file():
        return path
    if fetch:
        return fetch_checkpoint(name)
    size = "about 350 MB, " if name == "ViT-B/32" else ""
    raise MissingInput(
        f"The weights of CLIP {name} are not on this machine ({path} is missing). Get them with\n"
        f"  {_command(name)}\n"
        f"({size}resumable), or give a file you have with --set clip_checkpoint=PATH")


def fetch_checkpoint(name):
    """OpenAI's file for `name` in clip's own cache, downloaded where it isn't there whole.

    A download that broke off goes on where it was; the file is compared with OpenAI's SHA-256.

    Raises
    ------
    MissingInput : it can't be had; the message names the address and the remedies.
    """
    from impart_utils.sources.download import fetch_file

    url = import_clip().clip._MODELS[name]
    try:
        return fetch_file(url, clip_cache_path(name), sha256=official_hash(name))
    except MissingInput as error:
        raise MissingInput(f"{error}\nA file with these weights that you have will do as well: "
                           "--set clip_checkpoint=PATH (in Python checkpoint=PATH).") from error


def _command(name):
    return f'python -m impart_utils.sources.checkpoints "{name}"'


def clip_cache_path(name):
    """Where clip itself keeps the named weights, so that one download serves both."""
    return Path.home() / ".cache" / "clip" / Path(import_clip().clip._MODELS[name]).name


def official_hash(name):
    """SHA-256 of OpenAI's file for a name, or None: it is part of the address that clip itself uses."""
    models = import_clip().clip._MODELS
    return models[name].split("/")[-2] if name in models else None


def read_checkpoint(path, name):
    """Weights and their SHA-256; OpenAI's own file is read once and then from its copy in safetensors.

    Returns
    -------
    state_dict : dict, as `checkpoint_formats.read_state_dict`
    sha256 : str, of the file at `path`, whichever of the two was read
    """
    official = official_hash(name)
    if official and (state_dict := read_copy(path, official)) is not None:
        return state_dict, official
    try:
        state_dict, sha256 = read_state_dict(path), file_hash(path)
    except ValueError as error:
        raise ValueError(f"{error} {_anew(path, name)}".strip()) from error
    if sha256 == official:
        keep_copy(state_dict, path, official)
    return state_dict, sha256


def verify(state_dict, path, name, *, sha256, allow_unverified=False):
    """Say in words whose weights these are; refuse what isn't what `name` promises.

    Returns
    -------
    provenance : str, "OpenAI ViT-B/32" for OpenAI's own file; otherwise it says "unverified" and goes
        into every result.

    Raises
    ------
    ValueError : another architecture than the name asked for; another file under OpenAI's name in clip's
        own cache; weights that are said to need another activation function; or weights of unknown origin
        without `allow_unverified`.
    """
    check_architecture(state_dict, path, name)
    official = official_hash(name)
    if name == TINY and Path(path) == TINY_PATH:
        return "the kit's tiny CLIP (toy world)"
    if sha256 == official:
        return f"OpenAI {name}"
    if official and Path(path) == clip_cache_path(name):
        raise ValueError(f"{path} has the name of OpenAI's file for {name}, but its SHA-256 begins "
                         f"{sha256[:12]}, OpenAI's {official[:12]}: it was cut short or replaced. "
                         f"{_anew(path, name)}")
    if statement := plain_gelu(path):
        raise ValueError(f"{path} holds weights for another activation function: {statement}. OpenAI's code "
                         "has quick GELU and would compute wrong features from them. Take OpenAI's own "
                         f"{name} or a mirror of it; if that statement belongs to other weights, move this "
                         "file into a folder of its own.")
    if not allow_unverified:
        theirs = f"OpenAI's {official[:12]}" if official else "and OpenAI has no such file"
        raise ValueError(
            f"{path} isn't OpenAI's file for {name}: its SHA-256 begins {sha256[:12]}, {theirs}. "
            "Its activation function can't be read off the weights, so features may be silently wrong. "
            "To use it all the same, and have that named in every result: --set allow_unverified_clip=True "
            "(in Python allow_unverified=True)")
    architecture = "architecture" if name in ARCHITECTURES else "name (its architecture can't be checked)"
    return f"unverified weights of {name}'s {architecture}, SHA-256 {sha256[:12]}"


def _anew(path, name):
    """The remedy for a file in clip's own cache; nothing for others."""
    if official_hash(name) is None or Path(path) != clip_cache_path(name):
        return ""
    return (f"Fetch it anew, which replaces it: {_command(name)}. "
            "Other weights go by their own path: --set clip_checkpoint=PATH")


def main():
    """Fetch OpenAI's weights into clip's own cache ("ViT-B/32"), or check a file: check PATH_OR_NAME."""
    import argparse

    models = import_clip().clip._MODELS
    if sys.argv[1:2] != ["check"]:
        parser = argparse.ArgumentParser(description=main.__doc__)
        parser.add_argument("name", nargs="?", default="ViT-B/32", choices=[*sorted(models), "check"])
        name = parser.parse_args().name
        path = clip_cache_path(name)
        if path.is_file() and file_hash(path) == official_hash(name):
            print(f"{path} is there and whole.")
            return
        print(f"CLIP {name} is at {fetch_checkpoint(name)}.")
        return

    from impart_utils.clip_model import load_clip
    from impart_utils.config import load_config
    from impart_utils.sources import clip_checks, datasets

    parser = argparse.ArgumentParser(prog="checkpoints check", description="Is it OpenAI's ViT-B/32?")
    parser.add_argument("checkpoint", metavar="PATH_OR_NAME")
    parser.add_argument("--cifar10", metavar="PATH", help="folder with cifar-10-batches-py")
    parser.add_argument("--samples", metavar="NPZ", help="clip_vitb32_samples.npz, with --pictures")
    parser.add_argument("--pictures", metavar="DIR", help="the folder with the paper's dog.jpg and car.jpg")
    options = parser.parse_args(sys.argv[2:])
    if bool(options.samples) != bool(options.pictures):
        parser.error("--samples and --pictures go together")
    is_path = options.checkpoint.endswith(CHECKPOINTS) or Path(options.checkpoint).expanduser().is_file()
    name, checkpoint = ("ViT-B/32", options.checkpoint) if is_path else (options.checkpoint, None)
    find_checkpoint(name, checkpoint)  # what isn't here is not downloaded for a check
    clip = load_clip(name, checkpoint=checkpoint, precision="fp32", allow_unverified=True)
    print(clip.provenance)
    if name != "ViT-B/32":
        print(f"Hash and shapes alone could be checked: no cosines are known for {name}.")
        return
    checks = [clip_checks.check_texts(clip.encode_texts)]
    if options.cifar10:
        pictures = datasets.load_dataset(f"cifar10:{options.cifar10}", load_config()).pictures
        features = clip.encode_images([pictures[row] for row in range(10)])
        checks.append(clip_checks.check_cifar_pictures(features))
    if options.samples:
        checks.append(clip_checks.check_samples(clip.encode_images, options.samples, options.pictures))
    print("\n".join(map(str, checks)))
    sys.exit(0 if all(check.passed for check in checks) else 1)


if __name__ == "__main__":
    try:
        main()
    except (MissingInput, OSError, ValueError) as error:
        sys.exit(str(error))
