"""What a run lacks is said before it starts; what packs hold is found, and by what they say of themselves."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from impart_utils.config import MissingInput, load_config
from impart_utils.gallery import Gallery, save_gallery
from impart_utils.preflight import missing_inputs, packs_in, reasons_to_skip, require_inputs, take_packs
from impart_utils.sources import checkpoints, datasets
from impart_utils.sources.packs import Pack, save_pack


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "clip_cache_path", lambda name: tmp_path / "nowhere.pt")


def features(m=4):
    return np.random.default_rng(0).normal(size=(m, 3)).astype(np.float32)


def set_pack(path, dataset="cifar10", made_by="impart-kit 0", model="OpenAI ViT-B/32"):
    save_pack(path, Pack(
        features(), list("abcd"), model, labels=np.array([0, 1, 1, 0]), class_names=["x", "y"],
        class_texts={"paper/raw": np.eye(3, dtype=np.float32)[:2]}, made_by=made_by,
        protocol={"dataset": dataset, "n_available": 4, "notes": []}))


def pairs_pack(path, model="OpenAI ViT-B/32"):
    save_pack(path, Pack(features(30), [str(row) for row in range(30)], model, text_features=features(30),
                         captions=[""] * 30, protocol={"dataset": "pairs"}, made_by="impart-kit 0"))


def films_pack(path):
    films = Gallery("toy", ["a"], ["M"], ["t"], [""], [""], [None], [np.zeros(1)], [features(1)], {},
                    "OpenAI ViT-B/32")
    save_gallery(path, films, fps=4.0, texts={}, made_by="impart-kit 0", protocol={"dataset": "films"})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "packs").mkdir()
    set_pack(tmp_path / "packs" / "named_by_hand.safetensors")
    pairs_pack(tmp_path / "packs" / "pairs.safetensors")
    films_pack(tmp_path / "packs" / "films.safetensors")
    return tmp_path / "packs"


# ---- finding packs ----

def test_packs_are_known_by_what_they_say_and_others_by_their_names(folder):
    np.savez(folder / "cifar100_theirs.npz", image_features=features())
    np.savez(folder / "photos.npz", image_features=features())
    save_file({"w": features()}, folder / "toy101_weights.safetensors")  # of that name, but no pack
    (folder / "README.md").touch()
    (folder / ".cifar10-123.safetensors").write_bytes(b"half written")
    found, told = packs_in(folder)
    names = {holds: pack["path"].name for holds, pack in found.items()}
    assert names == {"cifar10": "named_by_hand.safetensors", "pairs": "pairs.safetensors",
                     "films": "films.safetensors", "cifar100": "cifar100_theirs.npz"}
    assert [line.split(":")[0] for line in told] == ["photos.npz", "toy101_weights.safetensors"]
    assert found["pairs"]["weights"] == found["films"]["weights"] == "OpenAI ViT-B/32"
    assert len(found["films"]["hash"]) == 16 and found["cifar100"]["made_by"] == ""


def test_the_kits_own_pack_goes_before_anothers(folder):
    np.savez(folder / "cifar10_subset.npz", image_features=features())
    assert packs_in(folder)[0]["cifar10"]["path"].name == "named_by_hand.safetensors"


def test_two_packs_of_one_thing_are_named(folder):
    set_pack(folder / "another.safetensors")
    with pytest.raises(ValueError, match="hold cifar10: another.safetensors and named_by_hand.safetensors"):
        packs_in(folder)


def test_a_damaged_pack_stops(folder):
    (folder / "x.safetensors").write_bytes((folder / "pairs.safetensors").read_bytes()[:50])
    with pytest.raises(ValueError, match="x.safetensors is not a whole safetensors file"):
        packs_in(folder)
    with pytest.raises(FileNotFoundError, match="no folder .*gone. Give --features the folder of the packs"):
        packs_in(folder / "gone")


# ---- settings from packs ----

def test_settings_name_the_packs_and_what_is_left_out(folder):
    found = take_packs(folder, load_config("paper"))
    assert found.settings == {"datasets": f"pack:{folder / 'named_by_hand.safetensors'}",
                              "reference": f"pack:{folder / 'pairs.safetensors'}",
                              "films": f"pack:{folder / 'films.safetensors'}"}
    assert found.lacking == {} and "cifar100: no pack, left out" in found.told
    assert "cifar10: named_by_hand.safetensors, made by impart-kit 0" in found.told
    assert {row["holds"] for row in found.packs} == {"cifar10", "pairs", "films"}
    assert set(found.packs[0]) == {"file", "holds", "weights", "made_by", "hash"}


def test_what_the_user_gave_stays(folder):
    mine = f"pack:{folder / 'pairs.safetensors'}"
    config = load_config("paper", datasets=f"cifar10,{mine}", reference="folder:mine")
    found = take_packs(folder, config, given={"datasets", "reference"})
    assert found.settings["datasets"].split(",") == [f"pack:{folder / 'named_by_hand.safetensors'}", mine]
    assert "reference" not in found.settings and "reference" not in found.lacking
    assert not any("left out" in line for line in found.told)


def test_a_place_in_the_name_is_the_same_data_set(folder, tmp_path):
    found = take_packs(folder, load_config("paper", datasets=f"cifar10:{tmp_path}"))
    assert found.settings["datasets"] == f"pack:{folder / 'named_by_hand.safetensors'}"


def test_what_no_pack_serves_is_lacking(folder):
    (folder / "named_by_hand.safetensors").unlink()
    (folder / "films.safetensors").unlink()
    found = take_packs(folder, load_config("paper", datasets="cifar100"))
    assert found.lacking == {"datasets": f"no pack of cifar100 in {folder}",
                             "films": f"no pack of films in {folder}"}
    (folder / "pairs.safetensors").unlink()
    with pytest.raises(ValueError, match="No pack in .* serves this run: no pack of pairs in"):
        take_packs(folder, load_config("paper"))


def test_packs_of_different_weights_are_refused(folder):
    pairs_pack(folder / "pairs.safetensors", model="OpenAI ViT-B/16")
    with pytest.raises(ValueError, match="come from different weights.*ViT-B/16"):
        take_packs(folder, load_config("paper"))


# ---- which notebooks can run ----

def test_notebooks_are_skipped_for_what_no_pack_holds(folder):
    found = take_packs(folder, load_config("paper"))
    config = load_config("paper", **found.settings)
    reasons = reasons_to_skip(config, ["00", "01", "02", "03", "04", "05", "06", "09"], found.lacking)
    assert list(reasons) == ["00"] and "weights of CLIP ViT-B/32 are not on this machine" in reasons["00"]
    reasons = reasons_to_skip(config, ["04", "06", "09"], {"films": "no pack of films in DIR"})
    assert reasons == {"06": "no pack of films in DIR"}


def test_a_changed_pack_stops_the_run_instead_of_skipping(folder):
    content = bytearray((folder / "films.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "films.safetensors").write_bytes(content)
    config = load_config("paper", **take_packs(folder, load_config("paper")).settings)
    assert reasons_to_skip(config, ["09"], {}) == {}
    with pytest.raises(ValueError, match="films.safetensors was changed"):
        reasons_to_skip(config, ["06"], {})


def test_a_pack_without_the_texts_asked_for_stops_before_the_first_notebook(folder):
    config = load_config("paper", prompts="openai", **take_packs(folder, load_config("paper")).settings)
    with pytest.raises(ValueError, match="no texts for prompts='openai' with names='raw'. It has paper/raw"):
        reasons_to_skip(config, ["04"], {})
    assert reasons_to_skip(config, ["09"], {}) == {}


def test_a_data_set_and_its_own_pack_are_one_too_many(folder, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: None)
    pack = f"pack:{folder / 'named_by_hand.safetensors'}"
    with pytest.raises(ValueError, match="different names, got two called 'cifar10' in cifar10, pack:"):
        missing_inputs(load_config("paper", clip="tiny", datasets=f"cifar10,{pack}"), ["04"])
    assert missing_inputs(load_config("paper", clip="tiny", datasets=f"cifar100,{pack}"), ["00"]) == []


# ---- without packs ----

def test_all_that_is_missing_is_named_once(tmp_path):
    places = {name: str(tmp_path / name) for name in ("data", "pairs", "films")}
    config = load_config("paper", datasets=f"cifar10:{places['data']},cifar100:{places['data']}",
                         reference=f"folder:{places['pairs']}", films=f"folder:{places['films']}")
    missing = missing_inputs(config, ["00", "04", "06"])
    begins = ["The weights of CLIP", "CIFAR-10 isn't in", "CIFAR-100 isn't in",
              f"There is no {places['pairs']}", f"There is no {places['films']}"]
    assert [message.startswith(begin) for message, begin in zip(missing, begins, strict=True)] == [True] * 5
    assert missing_inputs(config, ["09"]) == [] and len(missing_inputs(config, ["01"])) == 4
    with pytest.raises(MissingInput, match="profile can't start, nothing was downl.*\n\n1. The weights"):
        require_inputs(config, ["01"])


def test_a_list_of_photos_stands_for_the_set_that_notebook_01_builds_from_it(tmp_path):
    config = load_config("paper", clip="tiny", datasets="toy10", reference=f"folder:{tmp_path / 'yfcc'}")
    (tmp_path / "list.csv").write_text("identifier\n")
    assert missing_inputs(config, ["01", "02"], metadata=tmp_path / "list.csv") == []
    (none,) = missing_inputs(config, ["01"], metadata=tmp_path / "none.csv")
    assert "There is no file" in none and "none.csv" in none and "data/README.md" in none
    for numbers, metadata in ((["01"], None), (["02"], tmp_path / "list.csv")):  # 02 builds nothing
        (missing,) = missing_inputs(config, numbers, metadata=metadata)
        assert "captions.csv" in missing and "--set metadata=FILE" in missing
    with pytest.raises(ValueError, match="Unknown source 'net:.*Known: toy"):
        missing_inputs(load_config("paper", clip="tiny", datasets="toy10", reference="net:x"), ["01"])


def test_films_from_a_pack_need_no_weights(folder):
    config = load_config("paper", reference=f"pack:{folder / 'pairs.safetensors'}",
                         films=f"pack:{folder / 'films.safetensors'}")
    assert missing_inputs(config, ["06"]) == []
    config = load_config("paper", reference=config.reference, films=f"pack:{folder / 'gone.safetensors'}")
    assert "no pack of films at" in missing_inputs(config, ["06"])[0]
    with pytest.raises(ValueError, match="Unknown source 'net:.*x'. Known: toy, folder:PATH, pack:FILE"):
        missing_inputs(load_config("paper", clip="tiny", films="net:x"), ["06"])
