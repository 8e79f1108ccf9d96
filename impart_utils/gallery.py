"""The film gallery as features: each film's frames, sampled and encoded once and kept per film."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from impart_utils.cached import clip
from impart_utils.config import ROOT, MissingInput
from impart_utils.sources import features
from impart_utils.video import encode_film


@dataclass(frozen=True)
class Gallery:
    """Films as frame features.

    Attributes
    ----------
    name : str
    ids, movies, titles, descriptions, descriptions_without_names, paths : lists, one entry a film
        (a film without a description has "")
    timestamps : list of float arrays (f,), seconds;  frame_features : list of float32 arrays (f, d), raw
    broken : dict, file -> why it is left out or partial
    weights : str, whose CLIP made the features
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

    @cached_property
    def key(self):
        return features.content_hash(self.name, self.ids, self.descriptions, *self.frame_features)


@lru_cache(maxsize=2)
def film_gallery(config):
    """The profile's films, sampled at `config.fps` and encoded; a broken film is listed, never fatal."""
    kind, _, place = config.films.partition(":")
    if kind == "toy":
        from impart_utils.toy_world.films import make_films

        films = [{"id": film.id, "movie": film.movie, "title": film.title, "path": film.path,
                  "description": film.description, "without": film.description_without_names}
                 for film in make_films(config.cache_dir / "toy_films", seed=0)]
    elif kind == "folder" and place:
        films = _folder_films(Path(place))
    else:
        raise ValueError(f"Unknown films {config.films!r}. Known: toy, folder:PATH.")
    encoded, broken = {}, {}
    for film in features.progress_bar(films, description="encoding films"):
        try:
            encoded[film["id"]] = _encoded_film(config, film["path"])
        except ValueError as error:  # not a film, no picture, …: the message names the file
            broken[film["id"]] = str(error)
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
