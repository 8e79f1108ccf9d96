"""The two profiles, `demo` and `paper`: the same notebooks and code, other data and sizes."""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCALES = ("unit", "raw", "mixed")  # see reference.scaled
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
PROMPTS, NAMES = ("paper", "openai", "stored"), ("raw", "clean", "stored")  # see sources.prompts
CALTECH = ("torchvision", "vtab", "coop")  # see sources.caltech
AVERAGES = ("micro", "mean per class")
CHECKPOINTS = (".pt", ".pth", ".bin", ".safetensors")  # how a file of weights ends


class MissingInput(RuntimeError):
    """Something the profile needs is not on this machine; the message says what and how to get it."""


@dataclass(frozen=True)
class Config:
    """All that the notebooks need to know; made by `load_config`.

    Attributes
    ----------
    profile : "demo" or "paper"
    seed : int, for drawing references, training and resampling
    clip : "tiny", a name of OpenAI's such as "ViT-B/32", or the path of a checkpoint
    clip_checkpoint : path or None, the file with that model's weights (None: clip's own cache)
    allow_unverified_clip : bool, accept a checkpoint that isn't OpenAI's own file (named in every result)
    datasets : tuple of names for `sources.datasets.load_dataset`
    reference : "toy", "pack:FILE", "pack:FILE+TEXTS" or "folder:PATH": where the image-text pairs come from
    references : int, pairs in the reference set (paper, Sec. 4.1: 1000)
    pairs : int, references and training pairs together
    draws : int, how many reference sets are drawn where a notebook compares draws
    top_k, image_weight, text_weight : k, w_img and w_txt of Eq. 1 (the paper's code, branch main)
    scale : "unit", "raw" or "mixed": which vectors Eq. 1 adds (see `reference.scaled`)
    films : "toy", "folder:PATH" or "pack:FILE"
    fps : float, frames per second taken from a film (paper, Sec. 3.3: 4)
    limit : int or None, pictures per data set (None: all)
    prompts : "paper" ("a photo of a {}"), "openai" (the published templates) or "stored" (a pack's own)
    names : "raw" (as the data set has them), "clean" (as OpenAI published them) or, with stored prompts,
        "stored"
    caltech : "torchvision", "vtab" or "coop": which pictures and classes of Caltech101 are scored
    average : "micro" (each picture counts the same) or "mean per class"
    ram_epochs : int; ram_seeds : int, training runs per variant of RAM
    precision : "auto", "fp32", "fp16" or "bf16"
    """

    profile: str
    clip: str
    datasets: tuple
    reference: str
    films: str
    seed: int = 0
    clip_checkpoint: str | None = None
    allow_unverified_clip: bool = False
    references: int = 1000
    pairs: int = 10_000
    draws: int = 5
    top_k: int = 8
    image_weight: float = 0.5
    text_weight: float = 0.05
    scale: str = "unit"
    fps: float = 4.0
    limit: int | None = None
    prompts: str = "paper"
    names: str = "raw"
    caltech: str = "torchvision"
    average: str = "micro"
    ram_epochs: int = 8
    ram_seeds: int = 5
    precision: str = "auto"

    @property
    def is_toy(self):
        """True where all is the kit's own toy world, so that no number says anything of real pictures."""
        return (self.clip == "tiny" and self.clip_checkpoint is None
                and all(_is_toy(name) for name in (self.reference, self.films, *self.datasets)))

    @property
    def label(self):
        """What titles and captions add: " (toy world)" in the demo, nothing otherwise."""
        return " (toy world)" if self.is_toy else ""

    @property
    def data_dir(self):
        return ROOT / "data"

    @property
    def cache_dir(self):
        return Path(os.environ.get("IMPART_CACHE") or output_root() / "data" / "cache")

    @property
    def results_dir(self):
        return output_root() / "results" / self.profile

    @property
    def figures_dir(self):
        return self.results_dir / "figures"

    @property
    def executed_dir(self):
        return output_root() / "executed" / self.profile


PROFILES = {
    "demo": Config(
        profile="demo", clip="tiny", datasets=("toy10", "toy100", "toy101"), reference="toy", films="toy",
    ),
    "paper": Config(
        profile="paper", clip="ViT-B/32", datasets=("cifar10", "cifar100", "caltech101"),
        reference="folder:data/reference/yfcc", films="folder:data/films",
    ),
}


@lru_cache
def _is_toy(name):
    """True of the toy world's own names, and of a pack whose header says that it was made of them."""
    kind, _, place = name.partition(":")
    if kind != "pack":
        return name in ("toy", "toy10", "toy100", "toy101")
    try:
        with open(place, "rb") as file:  # safetensors: eight bytes, the length of the JSON that follows
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 100_000_000 else {}
        return header["__metadata__"]["toy"] == "yes"
    except (OSError, ValueError, KeyError, TypeError):  # another kind of pack, or none: not the kit's
        return False


def output_root():
    """Folder that holds results/, executed/ and data/cache/: the clone, or $IMPART_OUTPUT where set."""
    return ROOT / os.environ.get("IMPART_OUTPUT", "")  # a relative one counts from the clone, in every kernel


def load_config(profile="demo", **settings):
    """The profile's configuration with some settings replaced.

    Parameters
    ----------
    profile : "demo" or "paper"
    **settings : any attribute of `Config`; None means "as the profile has it". `datasets` may be one
        string with commas, as a command line gives it.

    Raises
    ------
    ValueError : unknown profile or setting, or a value that can't work; the message lists what is known.
    """
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}. Known profiles: {', '.join(PROFILES)}.")
    known = [field.name for field in dataclasses.fields(Config) if field.name != "profile"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"Unknown setting {unknown[0]!r}. Known settings: {', '.join(known)}.")
    given = {name: value for name, value in settings.items() if value is not None}
    if "datasets" in given:
        names = given["datasets"]
        names = names.split(",") if isinstance(names, str) else names
        names = names if isinstance(names, (list, tuple)) else [names]  # [10]: refused below, by name
        names = [name.strip() if isinstance(name, str) else name for name in names]
        given["datasets"] = tuple(name for name in names if name != "")
    if given.get("prompts") == "stored":
        given.setdefault("names", "stored")
    config = dataclasses.replace(PROFILES[profile], **given)
    _check_text(config)
    _check(config)
    return dataclasses.replace(
        config, datasets=tuple(_with_full_path(name) for name in config.datasets),
        reference=_with_full_path(config.reference), films=_with_full_path(config.films),
        clip=str(full_path(config.clip)) if config.clip.endswith(CHECKPOINTS) else config.clip,
        clip_checkpoint=config.clip_checkpoint and str(full_path(config.clip_checkpoint)))


def full_path(path):
    """An absolute path; a relative one counts from the working folder or, where it isn't there, the clone.

    Notebooks run in notebooks/, commands usually in the clone: the same setting must mean the same file.
    """
    path = Path(path).expanduser()
    here = Path.cwd() / path
    return here if here.exists() else ROOT / path


def _with_full_path(name):
    """"kind:PATH" with the path made absolute ("pack:A+B" holds two)."""
    kind, colon, place = name.partition(":")
    places = place.split("+") if kind == "pack" and not full_path(place).exists() else [place]
    return kind + colon + "+".join(str(full_path(place)) for place in places) if place else name


def _check_text(config):
    texts = [(name, getattr(config, name)) for name in ("clip", "reference", "films")]
    texts += [("datasets", name) for name in config.datasets]
    texts += [] if config.clip_checkpoint is None else [("clip_checkpoint", config.clip_checkpoint)]
    for name, value in texts:
        if not isinstance(value, (str, Path)):
            raise ValueError(f"Expected {name} to be text, got {value!r}.")
    if not isinstance(config.allow_unverified_clip, bool):
        raise ValueError("Expected allow_unverified_clip to be True or False, "
                         f"got {config.allow_unverified_clip!r}.")


def short_name(dataset):
    """What results call a data set: "cifar10:PATH" is "cifar10", a folder or pack keeps its name."""
    kind, _, place = dataset.partition(":")
    return f"{kind}:{Path(place).name}" if kind in ("folder", "pack") else kind


def _check(config):
    for name in ("references", "pairs", "draws", "top_k", "ram_epochs", "ram_seeds"):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"Expected {name} to be a whole number of at least 1, got {value!r}.")
    limit = 1 if config.limit is None else config.limit
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"Expected limit to be None or a whole number of at least 1, got {config.limit!r}.")
    if config.references > config.pairs:
        raise ValueError(f"Expected references <= pairs, got references={config.references} with "
                         f"{config.pairs} pairs. Lower references or raise pairs.")
    if config.top_k > config.references:
        raise ValueError(f"Expected top_k <= references, got top_k={config.top_k} with "
                         f"{config.references} references. Lower top_k or raise references.")
    for name, known in (("scale", SCALES), ("precision", PRECISIONS), ("prompts", PROMPTS), ("names", NAMES),
                        ("caltech", CALTECH), ("average", AVERAGES)):
        if getattr(config, name) not in known:
            raise ValueError(f"Unknown {name} {getattr(config, name)!r}. Known: {', '.join(known)}.")
    if (config.prompts == "stored") != (config.names == "stored"):
        raise ValueError("Expected prompts and names to be 'stored' together, got "
                         f"prompts={config.prompts!r} and names={config.names!r}: a pack's own prompts hold "
                         "its own names. Give prompts='stored' alone, or neither.")
    for name in ("image_weight", "text_weight"):
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"Expected {name} to be a number, got {value!r}.")
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"Expected seed to be a whole number of at least 0, got {config.seed!r}.")
    if not isinstance(config.fps, (int, float)) or not config.fps > 0:
        raise ValueError(f"Expected fps > 0 frames per second, got {config.fps!r}.")
    if not config.datasets:
        raise ValueError("Expected at least one data set in `datasets`, got none.")
    names = [short_name(name) for name in config.datasets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"Expected data sets with different names, got two called {twice!r}, which results "
                         "couldn't tell apart. Rename a folder or file.")


def run_info(config):
    """What every row of results carries: which run and which version of the kit made it."""
    return {
        "run_id": os.environ.get("IMPART_RUN_ID", "interactive"),
        "commit": commit(),
        "profile": config.profile,
    }


@lru_cache(maxsize=1)
def commit():
    """The clone's commit (or "no-git") and a hash of the code that counts: what made a result."""
    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        ours = git("rev-parse", "--show-toplevel")  # not that of a repository around an unpacked archive
        head = git("rev-parse", "--short=12", "HEAD") if ours and Path(ours).resolve() == ROOT else ""
    except FileNotFoundError:  # git isn't installed
        head = ""
    return f"{head or 'no-git'}-{source_hash()}"


def source_hash():
    """8 hex characters over the package and the notebooks' code, without outputs, prose and parameters."""
    digest = hashlib.sha256()
    files = [*(ROOT / "impart_utils").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes() if path.suffix == ".py" else _notebook_code(path))
    return digest.hexdigest()[:8]


def _notebook_code(path):
    cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
    return json.dumps(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"
                       and "parameters" not in cell["metadata"].get("tags", [])]).encode()
