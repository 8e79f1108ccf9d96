"""CLIP checkpoints: find, verify and read them; the weights' file decides everything that follows."""

import sys
import warnings
from pathlib import Path

from impart_utils.config import ROOT, MissingInput
from impart_utils.sources.features import file_hash

TINY = "tiny"
TINY_PATH = ROOT / "data" / "toy_clip.safetensors"

# (picture tower's width, its blocks, patch size, features' dimension): what a name promises
ARCHITECTURES = {
    "ViT-B/32": (768, 12, 32, 512),
    "ViT-B/16": (768, 12, 16, 512),
    "ViT-L/14": (1024, 24, 14, 768),
    TINY: (16, 4, None, 64),
}


def import_clip():
    """The package `clip`, without the deprecation warning of its one use of pkg_resources."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import clip
    return clip


def find_checkpoint(name, checkpoint=None):
    """The file with the weights of `name`: the given one, the tiny CLIP's, or the one in clip's own cache.

    Raises
    ------
    FileNotFoundError : `checkpoint` was given and isn't there.
    MissingInput : the named model isn't on this machine; the message says how to get it.
    ValueError : an unknown name.
    """
    clip = import_clip()
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
    if name not in clip.available_models():
        raise ValueError(f"Unknown CLIP {name!r}. Known: {TINY}, {', '.join(clip.available_models())}, or "
                         "give the path of a checkpoint.")
    path = clip_cache_path(name)
    if not path.is_file():
        raise MissingInput(
            f"The weights of CLIP {name} are not on this machine ({path} is missing). Get them with\n"
            f"  python -m impart_utils.sources.checkpoints \"{name}\"\n"
            "(about 350 MB, resumable), or give a file you have with --set clip_checkpoint=PATH")
    return path


def clip_cache_path(name):
    """Where clip itself keeps the named weights, so that one download serves both."""
    return Path.home() / ".cache" / "clip" / Path(import_clip().clip._MODELS[name]).name


def official_hash(name):
    """SHA-256 of OpenAI's file for a name, or None: it is part of the address that clip itself uses."""
    models = import_clip().clip._MODELS
    return models[name].split("/")[-2] if name in models else None


def read_state_dict(path):
    """The state dict in a file: safetensors, a plain `torch.save`, or OpenAI's TorchScript archive.

    Returns
    -------
    state_dict : dict, name -> tensor, on the CPU, in the file's own precision

    Raises
    ------
    ValueError : an HTML page, a truncated file, a checkpoint wrapped in something else, or one that
        isn't in OpenAI's layout. The message names the file and the remedy.
    """
    import torch

    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(512).lstrip()
    if head[:1] == b"<":
        raise ValueError(f"{path} is an HTML or XML page, not a checkpoint: the server answered with an "
                         "error page. Download it again.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state_dict = load_file(path)
        else:
            state_dict = _read_torch(path, torch)
    except Exception as error:  # zip, pickle and safetensors readers each raise their own kinds
        raise ValueError(f"{path} can't be read as a checkpoint ({type(error).__name__}: "
                         f"{str(error)[:200]}). The file may be cut short: compare its size with the "
                         "source's and download it again.") from error
    return _checked(state_dict, path)


def _read_torch(path, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated, but OpenAI's file is TorchScript
        try:
            model = torch.jit.load(path, map_location="cpu")
            return {name: value.detach() for name, value in model.state_dict().items()}
        except RuntimeError as not_torchscript:
            try:
                # weights_only never runs code from the file
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                raise error from not_torchscript


def _checked(state_dict, path):
    import torch

    needed = ("visual.conv1.weight", "text_projection", "ln_final.weight")
    if isinstance(state_dict, dict) and needed[0] in state_dict and not set(needed) <= set(state_dict):
        missing = next(name for name in needed if name not in state_dict)
        raise ValueError(f"{path} isn't a CLIP in OpenAI's layout: it has no {missing!r}.")
    if not isinstance(state_dict, dict) or "visual.conv1.weight" not in state_dict:
        keys = list(state_dict) if isinstance(state_dict, dict) else [type(state_dict).__name__]
        inner = [key for key in keys if isinstance(state_dict, dict) and isinstance(state_dict[key], dict)]
        if inner:
            raise ValueError(f"{path} wraps the weights under {inner[0]!r}. Save the inner dict alone: "
                             f"torch.save(checkpoint[{inner[0]!r}], …).")
        raise ValueError(f"{path} isn't a CLIP in OpenAI's layout: it has no 'visual.conv1.weight'; its "
                         f"first names are {keys[:3]}.")
    return {name: value for name, value in state_dict.items() if torch.is_tensor(value)}


def architecture(state_dict):
    """(picture tower's width, blocks, patch size or None for a ResNet, features' dimension)."""
    dim = state_dict["text_projection"].shape[1]
    if "visual.proj" in state_dict:  # a vision transformer
        blocks = len({name.split(".")[3] for name in state_dict
                      if name.startswith("visual.transformer.resblocks.")})
        patch = state_dict["visual.conv1.weight"].shape[-1]
        return state_dict["visual.class_embedding"].shape[0], blocks, patch, dim
    blocks = sum(name.startswith("visual.layer") and name.endswith(".conv3.weight") for name in state_dict)
    return state_dict["visual.layer1.0.conv1.weight"].shape[0], blocks, None, dim


def verify(state_dict, path, name, *, sha256, allow_unverified=False):
    """Say in words whose weights these are; refuse what isn't what `name` promises.

    Returns
    -------
    provenance : str, "OpenAI ViT-B/32" for OpenAI's own file; otherwise it says "unverified" and goes
        into every result.

    Raises
    ------
    ValueError : another architecture than the name asked for, or weights of unknown origin without
        `allow_unverified`.
    """
    found, expected = architecture(state_dict), ARCHITECTURES.get(name)
    if expected and found != expected:
        raise ValueError(
            f"{path} isn't a {name}: (width, blocks, patch size, dimension) is {found}, expected {expected}. "
            f"Known: {', '.join(f'{key} {value}' for key, value in ARCHITECTURES.items())}.")
    if name == TINY and Path(path) == TINY_PATH:
        return "the kit's tiny CLIP (toy world)"
    official = official_hash(name)
    if sha256 == official:
        return f"OpenAI {name}"
    if not allow_unverified:
        theirs = f"OpenAI's {official[:12]}" if official else "and OpenAI has no such file"
        raise ValueError(
            f"{path} isn't OpenAI's file for {name}: its SHA-256 begins {sha256[:12]}, {theirs}. "
            "Its activation function can't be read off the weights, so features may be silently wrong. "
            "To use it all the same, and have that named in every result: --set allow_unverified_clip=True")
    return f"unverified weights of {name}'s architecture, SHA-256 {sha256[:12]}"


def main():
    """Fetch OpenAI's weights into clip's own cache: python -m impart_utils.sources.checkpoints "ViT-B/32"."""
    import argparse

    from impart_utils.sources.download import fetch_file

    models = import_clip().clip._MODELS
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="?", default="ViT-B/32", choices=sorted(models))
    name = parser.parse_args().name
    path = clip_cache_path(name)
    if path.is_file() and file_hash(path) == official_hash(name):
        print(f"{path} is there and whole.")
        return
    fetch_file(models[name], path, sha256=official_hash(name))
    print(f"CLIP {name} is at {path}.")


if __name__ == "__main__":
    try:
        main()
    except (MissingInput, OSError) as error:
        sys.exit(str(error))
