"""Galleries from packs: frame features and texts travel, frames and films don't."""

import numpy as np
import pytest

from impart_utils import cached, clip_model, gallery
from impart_utils.config import MissingInput, load_config
from impart_utils.gallery import (
    Gallery,
    film_gallery,
    frame_at,
    load_gallery,
    save_gallery,
    shots,
    text_features,
)
from impart_utils.sources import checkpoints
from impart_utils.sources.packs import Pack, grey_tile, save_pack
from impart_utils.toy_world import films as toy_films


def make_gallery(**changes):
    rng = np.random.default_rng(0)
    frames = [9, 1, 5]
    parts = dict(
        name="folder:three", ids=["a.mp4", "b.mp4", "c.mp4"], movies=["M", "M", "N"],
        titles=["one", "two", "ünï"],
        descriptions=["Ada finds a boat.", "", "A storm."], descriptions_without_names=["", "", ""],
        paths=["here/a.mp4", "here/b.mp4", "here/c.mp4"], timestamps=[np.arange(f) / 4 for f in frames],
        frame_features=[rng.normal(size=(f, 3)).astype(np.float32) for f in frames],
        broken={"d.mp4": "not a film"}, weights="fake CLIP")
    return Gallery(**{**parts, **changes})


TEXTS = {"Ada finds a boat.": np.array([1, 2, 3], np.float32), "one": np.array([0, 0, 1], np.float32)}


@pytest.fixture(autouse=True)
def forget():
    yield
    cached._clip.cache_clear()
    film_gallery.cache_clear()


@pytest.fixture
def saved(tmp_path):
    save_gallery(tmp_path / "films.safetensors", make_gallery(), fps=4.0, texts=TEXTS, made_by="impart-kit 0",
                 protocol={"dataset": "films"}, license="none", source="three films")
    return tmp_path / "films.safetensors"


def test_a_gallery_comes_back_without_its_paths(saved):
    first, again = make_gallery(), load_gallery(saved, fps=4.0)
    for name in ("name", "ids", "movies", "titles", "descriptions", "descriptions_without_names", "broken",
                 "weights"):
        assert getattr(again, name) == getattr(first, name), name
    for name in ("timestamps", "frame_features"):
        for one, other in zip(getattr(first, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
    assert again.paths == [None] * 3 and again.key == first.key  # results from either carry the same inputs
    assert again.origin == "features from films.safetensors, made by impart-kit 0"
    assert b"here/a.mp4" not in saved.read_bytes()


def test_the_profile_takes_its_films_from_a_pack(saved):
    config = load_config("paper", films=f"pack:{saved}")
    assert film_gallery(config).ids == ["a.mp4", "b.mp4", "c.mp4"]
    with pytest.raises(ValueError, match="holds 4 frames a second, fps=1 was asked. Leave fps out"):
        film_gallery(load_config("paper", films=f"pack:{saved}", fps=1))
    with pytest.raises(ValueError, match="Unknown films 'pack'. Known: toy, folder:PATH, pack:FILE"):
        film_gallery(load_config("paper", films="pack"))


def test_files_that_are_no_pack_of_films(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no pack of films at .*gone.safetensors"):
        load_gallery(tmp_path / "gone.safetensors")
    save_pack(tmp_path / "pictures.safetensors", Pack(np.ones((1, 2), np.float32), ["a"], "m"))
    with pytest.raises(ValueError, match="pictures.safetensors is a pack of pictures, not of films"):
        load_gallery(tmp_path / "pictures.safetensors")
    content = bytearray(saved.read_bytes())
    content[-5] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="films.safetensors was changed since it was written"):
        load_gallery(saved)


def test_a_pack_without_texts(tmp_path):
    save_gallery(tmp_path / "f.safetensors", make_gallery(), fps=4.0, texts={}, made_by="")
    assert load_gallery(tmp_path / "f.safetensors").texts == {}


# ---- texts ----

def test_stored_texts_need_no_clip(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("CLIP was loaded")

    monkeypatch.setattr(clip_model, "load_clip", refuse)
    found = text_features(load_config("paper"), load_gallery(saved), ["one", "Ada finds a boat.", "one"])
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 2, 3], [0, 0, 1]])
    assert text_features(load_config("paper"), load_gallery(saved), []).shape == (0, 3)


def test_another_text_names_what_it_needs_and_downloads_nothing(saved, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "clip_cache_path", lambda name: tmp_path / "nowhere.pt")

    def refuse(*arguments, **options):
        raise AssertionError("fetched or loaded")

    monkeypatch.setattr(checkpoints, "fetch_checkpoint", refuse)
    monkeypatch.setattr(clip_model, "load_clip", refuse)
    message = "from films.safetensors, made by .* not 'a red boat': another text needs CLIP. The weights of"
    with pytest.raises(MissingInput, match=message):
        text_features(load_config("paper"), load_gallery(saved), ["one", "a red boat"])


def test_another_text_by_the_same_clip_and_by_no_other(saved, monkeypatch):
    class Fake:
        provenance = "fake CLIP"

        def encode_texts(self, texts):
            return np.array([[len(text)] * 3 for text in texts], np.float32)

    clip = Fake()
    monkeypatch.setattr(gallery, "clip", lambda config: clip)
    found = text_features(load_config("demo"), load_gallery(saved), ["one", "seven!!"])
    assert found.tolist() == [[3] * 3, [7] * 3]  # all by the one CLIP
    found = text_features(load_config("demo"), make_gallery(), ["seven!!"])  # the films are here: no pack
    assert found.tolist() == [[7] * 3]
    clip.provenance = "other CLIP"
    with pytest.raises(ValueError, match="'other CLIP'.*'fake CLIP'.*mean nothing"):
        text_features(load_config("demo"), load_gallery(saved), ["one", "seven!!"])


# ---- pictures ----

def test_shots_of_a_pack_are_grey_tiles_at_the_times_of_its_features(saved):
    films = load_gallery(saved)  # film 0: 0, 0.25, …, 2 seconds
    shown = shots(films, 0)
    assert [seconds for seconds, _ in shown] == [0, 1, 2]
    assert np.array_equal(shown[1][1], grey_tile("a.mp4\n1.0 s"))
    assert [seconds for seconds, _ in shots(films, 1)] == [0]
    assert [seconds for seconds, _ in shots(films, 2, fps=2)] == [0, 0.5, 1]
    assert frame_at(films, 0, 1.1) == 4 and frame_at(films, 1, 99) == 0


def test_shots_of_a_film_that_is_here_are_its_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_films, "CLIPS", 1)
    monkeypatch.setattr(toy_films, "_movies", lambda seed, movies=toy_films._movies: movies(seed)[:1])
    path = toy_films.make_films(tmp_path, seed=0)[0].path
    shown = shots(make_gallery(paths=[path, None, None]), 0)
    assert [seconds for seconds, _ in shown] == list(range(len(shown))) and len(shown) > 3
    assert shown[0][1].size == (toy_films.SIZE, toy_films.SIZE) and np.asarray(shown[0][1]).std() > 5


# ---- Films of a folder: states, resume --------------------------------------------------------------

def write_film(path, frames=20):
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four films, one of them cut, and a web page; and a CLIP that only counts pictures."""
    place = tmp_path / "films"
    place.mkdir()
    for name, frames in (("a.mp4", 10), ("b.mp4", 20), ("cut.mp4", 50), ("last.mp4", 14)):
        write_film(place / name, frames)
    whole = (place / "cut.mp4").read_bytes()
    (place / "cut.mp4").write_bytes(whole[:int(0.7 * len(whole))])
    (place / "page.mp4").write_text("<html>This video isn't available</html>")
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))

    class Fake:
        key, provenance, encoded = "fake", "fake CLIP", []

        def encode_images(self, pictures):
            self.encoded.append(len(pictures))
            return np.ones((len(pictures), 3), np.float32)

    fake = Fake()
    fake.encoded = []
    monkeypatch.setattr(gallery, "clip", lambda config: fake)
    return place, fake


def test_broken_films_are_listed_and_stop_nothing(folder):
    place, _ = folder
    found = film_gallery(load_config("demo", films=f"folder:{place}"))
    assert found.ids == ["a.mp4", "b.mp4", "cut.mp4", "last.mp4"]
    assert set(found.broken) == {"cut.mp4", "page.mp4"}
    states = gallery.film_states(found).set_index("file")
    assert states["state"].to_dict() == {"a.mp4": "ok", "b.mp4": "ok", "cut.mp4": "partial",
                                         "last.mp4": "ok", "page.mp4": "unreadable"}
    assert states.loc["b.mp4", ["seconds", "frames"]].tolist() == [2.0, 8]
    assert 0 < states.loc["cut.mp4", "frames"] < 20 and "is partial" in states.loc["cut.mp4", "reason"]
    assert states.loc["page.mp4", ["seconds", "frames"]].tolist() == [0, 0]
    reasons = states["reason"]
    assert "page.mp4 is not a film" in reasons["page.mp4"] and reasons["a.mp4"] == ""


def test_a_film_that_cannot_be_read_is_listed_too(folder, monkeypatch):
    place, _ = folder
    file_hash = gallery.features.file_hash

    def refuse(path):
        if path.name in ("a.mp4", "b.mp4"):
            kind = PermissionError if path.name == "a.mp4" else FileNotFoundError
            raise kind(f"{path.name} can't be opened")
        return file_hash(path)

    monkeypatch.setattr(gallery.features, "file_hash", refuse)
    found = film_gallery(load_config("demo", films=f"folder:{place}"))
    assert found.ids == ["cut.mp4", "last.mp4"]
    assert found.broken["a.mp4"] == "a.mp4 can't be opened" and "b.mp4" in found.broken


def test_a_killed_run_goes_on_with_the_next_film(folder, monkeypatch):
    place, fake = folder
    encode = fake.encode_images

    def killed(pictures):
        if len(fake.encoded) == 2:
            raise KeyboardInterrupt
        return encode(pictures)

    monkeypatch.setattr(fake, "encode_images", killed)
    config = load_config("demo", films=f"folder:{place}")
    with pytest.raises(KeyboardInterrupt):
        film_gallery(config)
    assert fake.encoded == [4, 8]
    monkeypatch.setattr(fake, "encode_images", encode)
    found = film_gallery(config)
    assert fake.encoded[:2] == [4, 8] and len(fake.encoded) == 4 and len(found.ids) == 4  # a and b are kept
    film_gallery.cache_clear()
    film_gallery(config)
    assert len(fake.encoded) == 4
    write_film(place / "a.mp4", frames=30)  # another film under the name: encoded anew, the others aren't
    film_gallery.cache_clear()
    assert len(film_gallery(config).timestamps[0]) == 12 and len(fake.encoded) == 5
