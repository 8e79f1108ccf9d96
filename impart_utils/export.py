"""Make feature packs: what a reviewer needs to re-execute the notebooks without weights, pictures or films.

``python -m impart_utils.export --profile paper --out data/packs`` encodes what isn't in the cache yet and
writes one file per data set, pairs.safetensors and films.safetensors. They hold features, ids, labels,
captions, texts, licenses and sources: no pixels, and no path of this machine.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import impart_utils
from impart_utils import cached, config, gallery
from impart_utils.preflight import missing_by_need
from impart_utils.sources import caltech, prompts
from impart_utils.sources.pack_files import read_header
from impart_utils.sources.packs import Pack, save_pack

OWN = "MIT (drawn by the kit)"
NOT_STATED = "none stated (pictures collected from the web); features only, the source is to be named"
LICENSES = {  # of the pictures behind the features, as their sources state them (data/README.md)
    "toy10": OWN, "toy100": OWN, "toy101": OWN,
    "cifar10": NOT_STATED, "cifar100": NOT_STATED,
    "caltech101": "CC BY 4.0, Caltech's data repository, DOI 10.22002/D1.20086",
}
SOURCES = {
    "cifar10": "CIFAR-10 (Krizhevsky 2009), test part", "cifar100": "CIFAR-100 (Krizhevsky 2009), test part",
    "caltech101": "Caltech101 (Li et al. 2022), all folders",
}
FETCHED = ("studio clips on YouTube, which may not be passed on: no frame is in here; titles and "
           "descriptions are Condensed Movies' metadata, which state no license")


def pictures_pack(settings, name):
    """A data set as a `Pack`: every picture and class that any protocol scores, and every class text.

    Parameters
    ----------
    settings : config.Config;  name : str, as for `sources.datasets.load_dataset`
    """
    dataset, image_features, ids, skipped = cached.picture_features(settings, name)
    row = {item: at for at, item in enumerate(dataset.ids)}
    notes = list(dataset.notes)
    if skipped:  # without the reason, which holds a path
        notes.append(f"{len(skipped)} pictures can't be opened, the first: {next(iter(skipped))}")
    texts = {"/".join(key): block for key, block in cached.class_texts(settings, name).items()}
    protocol = {
        "dataset": dataset.name, "title": dataset.title, "n_available": dataset.n_available, "notes": notes,
        "split": "all folders" if dataset.name == "caltech101" else "test",
        **how_encoded(settings, toy=dataset.name.startswith("toy")),
        "templates": {asked: list(prompts.templates(asked, dataset.name)) for asked in ("paper", "openai")},
        "names": {form: prompts.class_names(form, dataset.name, dataset.class_names)
                  for form in ("raw", "clean")}}
    return Pack(
        image_features, list(ids), cached.clip(settings).provenance,
        labels=dataset.labels[[row[item] for item in ids]], class_names=list(dataset.class_names),
        class_texts=texts, protocol=protocol, license=LICENSES.get(dataset.name, "not stated"),
        source=SOURCES.get(dataset.name, dataset.title), made_by=made_by())


def pairs_pack(settings):
    """The pool of reference and training pairs as a `Pack`, with license and page per row where known."""
    pairs, toy = cached.pair_pool(settings), settings.reference == "toy"
    skipped = dict.fromkeys(pairs.metadata.get("skipped", {}), "can't be opened")
    metadata = {**pairs.metadata, "skipped": skipped}
    return Pack(
        pairs.image_features, list(pairs.ids), pairs.weights, text_features=pairs.text_features,
        captions=list(pairs.captions), metadata=metadata,
        protocol={"dataset": "pairs", **how_encoded(settings, toy=toy)},
        license=OWN if toy else metadata.get("columns", {}).get("license", "not stated"),
        source=str(metadata.get("source", "not stated")), made_by=made_by())


def save_films(settings, path):
    """The film gallery as a pack, with the features of its titles and descriptions as queries."""
    films, toy = gallery.film_gallery(settings), settings.films == "toy"
    folder = settings.cache_dir / "toy_films" if toy else Path(settings.films.partition(":")[2])
    broken = {name: reason.replace(f"{folder}/", "") for name, reason in films.broken.items()}
    asked = [*films.descriptions, *films.descriptions_without_names, *films.titles]
    asked = list(dict.fromkeys(text for text in asked if text))
    texts = dict(zip(asked, cached.clip(settings).encode_texts(asked), strict=True))
    theirs = FETCHED if (folder / "manifest.csv").is_file() else "not stated"  # sources.films wrote it
    gallery.save_gallery(
        path, replace(films, broken=broken), fps=settings.fps, texts=texts, made_by=made_by(),
        license=OWN if toy else theirs, source="toy world" if toy else films.name,
        protocol={"dataset": "films", "frames per second": settings.fps, **how_encoded(settings, toy=toy)})


def how_encoded(settings, *, toy):
    """The part of a pack's protocol that all packs share, in words; `toy`: drawn by the kit."""
    clip = cached.clip(settings)
    return {
        "weights": clip.provenance, "key": clip.key, "precision": clip.precision,
        "device": clip.device.split(":")[0],
        "toy": toy and settings.clip == "tiny" and settings.clip_checkpoint is None,
        "preprocessing": f"CLIP's own: shorter side to {clip.model.visual.input_resolution} pixels, bicubic; "
                         "center crop; normalized",
        "features": "raw: as the encoder gives them, not normalized; class texts: unit, the normalized mean "
                    "over the templates of unit vectors"}


def made_by():
    """Version and commit of the kit, as a pack names its maker."""
    return f"impart-kit {impart_utils.__version__} (commit {config.commit()})"


def export(settings, out, only=None):
    """Write the packs of a configuration.

    Parameters
    ----------
    settings : config.Config;  out : folder
    only : names of packs, such as "cifar10", "pairs", "films", or None for all

    Returns
    -------
    done : dict, name -> path;  left : dict, name -> why it could not be made

    Raises
    ------
    ValueError : a name that isn't among the packs, or a setting that is a pack itself.
    """
    packs = [place for place in (*settings.datasets, settings.reference, settings.films)
             if place.startswith("pack:")]
    if packs:
        raise ValueError(f"Expected pictures, pairs and films to make packs of, got {packs[0]}. "
                         "Give --set datasets=… and --set reference=… without packs.")
    known = {config.short_name(name): name for name in settings.datasets} | {"pairs": None, "films": None}
    unknown = sorted(set(only or ()) - set(known))
    if unknown:
        raise ValueError(f"Unknown pack {unknown[0]!r}. Known: {', '.join(known)}.")
    done, left = {}, {}
    for name in [name for name in known if only is None or name in only]:
        path = Path(out) / f"{name.replace(':', '-')}.safetensors"
        missing = what_is_missing(settings, name, known[name])
        if missing:
            left[name] = " ".join(missing)
            continue
        if name == "films":
            save_films(settings, path)
        else:
            save_pack(path, pairs_pack(settings) if name == "pairs" else pictures_pack(settings, known[name]))
        if name == "caltech101":
            copy_split_files(settings, known[name], path.parent)
        done[name] = path
    return done, left


def what_is_missing(settings, name, dataset):
    """Messages on what a pack needs and this machine lacks; nothing is downloaded."""
    need = {"pairs": "reference", "films": "films"}.get(name, "datasets")
    settings = settings if dataset is None else replace(settings, datasets=(dataset,))
    return missing_by_need(settings, {need})[need]


def copy_split_files(settings, name, folder):
    """Caltech101's lists of test pictures, where they are here: the pack finds them beside itself."""
    beside = cached.picture_features(settings, name)[0].folder.parent
    for file in caltech.SPLIT_FILES.values():
        if (beside / file).is_file():
            shutil.copyfile(beside / file, folder / file)


def main(arguments=None):
    """The command line; returns the exit code: 0, or 1 where a pack could not be made."""
    from impart_utils.run_settings import Stop, as_config, parse_settings

    parser = argparse.ArgumentParser("python -m impart_utils.export", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", default="paper", help="paper (default) or demo, for toy packs")
    parser.add_argument("--out", default=config.ROOT / "data" / "packs", metavar="DIR", type=Path,
                        help="default: data/packs of the clone")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="settings",
                        help="another value of a setting; may be repeated")
    parser.add_argument("--only", metavar="cifar10,pairs,films", help="these packs alone")
    given = parser.parse_args(arguments)
    try:
        settings = as_config(given.profile, parse_settings(given.settings))
        done, left = export(settings, given.out.expanduser(), given.only and given.only.split(","))
    except (Stop, config.MissingInput, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, path in done.items():
        print(f"{name}: {path}, {path.stat().st_size / 1e6:.1f} MB, hash {read_header(path)['hash']}")
    for name, reason in left.items():
        print(f"{name}: not made. {reason}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
