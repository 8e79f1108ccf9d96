"""The film gallery as features: each film's frames, sampled and encoded once and kept per film."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.cached import clip, require_same_weights
from impart_utils.config import ROOT, MissingInput
from impart_utils.scene_windows import film_end
from impart_utils.sources import checkpoints, features
from impart_utils.sources.pack_files import read_arrays, write_arrays
from impart_utils.sources.packs import grey_tile
from impart_utils.video import encode_film, sample_frames


@dataclass(frozen=True)
class Gallery:
    """Films as frame features.

    Attributes
    ----------
    name : str
    ids, movies, titles, descriptions, descriptions_without_names, paths : lists, one entry a film
        (a film without a description has ""; one from a pack has the path None)
    timestamps : list of float arrays (f,), seconds;  frame_features : list of float32 arrays (f, d), raw
    broken : dict, file -> why it is left out or partial
    weights : str, whose CLIP made the features
    texts : dict, text -> float32 (d,): what a pack stores of its descriptions and titles
    origin : str, the pack's file and maker; "" where the films themselves are here
    key : str, content hash
    """

    name: str
    ids: list
    movies: list
    titles: list
    descriptions: list
    descriptions_without_names: list
    paths: list
    timestamps: list
    frame_features: list
    broken: dict
    weights: str
    texts: dict = field(default_factory=dict)
    origin: str = ""

    @cached_property
    def key(self):
        return features.content_hash(self.name, self.ids, self.descriptions, *self.frame_features)


@lru_cache(maxsize=2)
def film_gallery(config):
    """The profile's films, sampled at `config.fps` and encoded; a broken film is listed, never fatal."""
    kind, _, place = config.films.partition(":")
    if kind == "pack" and place:
        return load_gallery(place, fps=config.fps)
    if kind == "toy":
        from impart_utils.toy_world.films import make_films

        films = [{"id": film.id, "movie": film.movie, "title": film.title, "path": film.path,
                  "description": film.description, "without": film.description_without_names}
                 for film in make_films(config.cache_dir / "toy_films", seed=0)]
    elif kind == "folder" and place:
        films = _folder_films(Path(place))
    else:
        raise ValueError(f"Unknown films {config.films!r}. Known: toy, folder:PATH, pack:FILE.")
    encoded, broken = {}, {}
    for film in features.progress_bar(films, description="encoding films"):
        try:
            encoded[film["id"]] = _encoded_film(config, film["path"])
        except (ValueError, PermissionError, FileNotFoundError) as error:  # not a film, no picture, no right
            broken[film["id"]] = str(error)  # the message names the file
            continue
        if partial := encoded[film["id"]][2]:
            broken[film["id"]] = partial
    films = [film for film in films if film["id"] in encoded]
    if not films:
        raise MissingInput(f"None of the films in {place} can be read: "
                           f"{next(iter(broken.values()), 'there is none')}.")
    return Gallery(
        config.films if kind == "toy" else f"folder:{Path(place).name}",
        *([film[key] for film in films]
          for key in ("id", "movie", "title", "description", "without", "path")),
        [encoded[film["id"]][0] for film in films], [encoded[film["id"]][1] for film in films], broken,
        clip(config).provenance)


def _folder_films(folder):
    from impart_utils.sources.films import folder_gallery

    if not folder.is_dir():
        raise MissingInput(f"There is no folder of films at {folder}. Give one with --set films=folder:PATH; "
                           "how to get the paper's clips: python -m impart_utils.sources.films --help")
    table = folder_gallery(folder)
    return [{"id": row.file, "movie": row.movie, "title": row.title, "path": folder / row.file,
             "description": row.description, "without": ""} for row in table.itertuples()]


def _encoded_film(config, path):
    """(timestamps, frame features, why partial or ""), kept per film: a killed run goes on with the next."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    code = features.file_hash(ROOT / "impart_utils" / "video.py")  # which frames a film gives
    key = features.content_hash(clip(config).key, features.file_hash(path), config.fps, code)
    cache = config.cache_dir / "films" / f"{key}.safetensors"
    if not cache.exists():
        film = encode_film(clip(config).encode_images, path, fps=config.fps)
        with features.atomic_path(cache) as temporary:
            save_file({"timestamps": film.timestamps, "features": film.frame_features}, temporary,
                      metadata={"partial": film.partial})
    with safe_open(cache, "np") as file:
        return file.get_tensor("timestamps"), file.get_tensor("features"), file.metadata()["partial"]


# ---- What a notebook asks of a gallery, whether its films are here or only their features -----------


def text_features(config, gallery, texts):
    """Features of text queries: those that the gallery's pack stores, or by CLIP.

    Parameters
    ----------
    texts : list of q str

    Returns
    -------
    text_features : float32 array (q, d), raw

    Raises
    ------
    MissingInput : a pack doesn't hold a text, and CLIP's weights aren't here.
    ValueError : the weights that are here aren't those of the pack.
    """
    texts = list(texts)
    new = [text for text in texts if text not in gallery.texts]
    if not texts:
        return np.empty((0, gallery.frame_features[0].shape[1]), np.float32)
    if not new:
        return np.stack([gallery.texts[text] for text in texts])
    if gallery.origin:
        try:
            checkpoints.find_checkpoint(config.clip, config.clip_checkpoint)  # without fetching it
        except MissingInput as error:
            raise MissingInput(f"The {gallery.origin}, hold the texts of titles and descriptions, but not "
                               f"{new[0]!r}: another text needs CLIP. {error}") from error
        require_same_weights(clip(config).provenance, gallery)
    return clip(config).encode_texts(texts)


def shots(gallery, film, *, fps=1.0):
    """A film's pictures for showing; grey tiles at the same times where only features are at hand.

    Parameters
    ----------
    film : int, row of the gallery;  fps : float, pictures per second

    Returns
    -------
    shots : list of (seconds, PIL picture)
    """
    if gallery.paths[film] is not None:
        return list(sample_frames(gallery.paths[film], fps=fps))
    times = gallery.timestamps[film]
    seconds = [float(times[frame_at(gallery, film, at)]) for at in np.arange(0, times[-1] + 1e-6, 1 / fps)]
    return [(at, grey_tile(f"{gallery.ids[film]}\n{at:.1f} s")) for at in seconds]


def film_states(gallery):
    """What became of each file: its state (ok, partial, unreadable), seconds, frames, reason; a DataFrame."""
    frames = dict(zip(gallery.ids, gallery.timestamps, strict=True))
    rows = []
    for name in dict.fromkeys([*gallery.ids, *gallery.broken]):
        times, reason = frames.get(name, ()), gallery.broken.get(name, "")
        state = "unreadable" if not len(times) else "partial" if reason else "ok"
        rows.append({"file": name, "state": state, "seconds": film_end(times) if len(times) else 0.0,
                     "frames": len(times), "reason": reason})
    return pd.DataFrame(rows)


def frame_at(gallery, film, seconds):
    """The row of a film's frame features that is nearest in time."""
    return int(np.abs(gallery.timestamps[film] - seconds).argmin())


# ---- Packs of films ---------------------------------------------------------------------------------

_LISTS = ("name", "ids", "movies", "titles", "descriptions", "descriptions_without_names")


def save_gallery(path, gallery, *, fps, texts, **about):
    """Write a gallery as a pack: frame features with their times, and texts with theirs; no frame.

    Parameters
    ----------
    path : of the file, FILE.safetensors;  gallery : Gallery;  fps : float, frames per second in it
    texts : dict, text -> (d,), features of titles and descriptions
    **about : protocol (dict), license, source, made_by, as of `sources.packs.Pack`
    """
    arrays = {"frame_features": np.concatenate(gallery.frame_features),  # (all frames, d)
              "timestamps": np.concatenate(gallery.timestamps),
              "frames": np.array([len(times) for times in gallery.timestamps], np.int64)}
    if texts:
        arrays["text_features"] = np.stack(list(texts.values()))  # (t, d)
    lists = {name: getattr(gallery, name) for name in (*_LISTS, "broken", "weights")}
    write_arrays(path, arrays, {"kind": "films", **lists, "fps": fps, "texts": list(texts), **about})


def load_gallery(path, *, fps=None):
    """A gallery from a pack that `save_gallery` wrote.

    Raises
    ------
    FileNotFoundError; ValueError : not a pack of films, a changed one, or one with another `fps`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no pack of films at {path}. Check the path given after 'pack:'.")
    arrays, lists = read_arrays(path)
    if lists.get("kind") != "films":
        raise ValueError(f"{path} is a pack of pictures, not of films. Films come from a pack that python -m "
                         "impart_utils.export made.")
    if fps is not None and fps != lists["fps"]:
        raise ValueError(f"{path} holds {lists['fps']:g} frames a second, fps={fps:g} was asked. Leave fps "
                         "out, or make the pack anew with it.")
    ends = np.cumsum(arrays["frames"])[:-1]
    return Gallery(
        *(lists[name] for name in _LISTS), [None] * len(lists["ids"]),
        np.split(arrays["timestamps"], ends), np.split(arrays["frame_features"], ends), lists["broken"],
        lists["weights"], dict(zip(lists["texts"], arrays.get("text_features", ()), strict=True)),
        f"features from {Path(path).name}, made by {lists['made_by']}")
