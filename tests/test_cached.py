"""What notebooks share: computed once, found again from disk, never mixed up."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from impart_utils import cached, clip_model, ram_jobs, training
from impart_utils.config import MissingInput, load_config
from impart_utils.reference import ReferenceSet, scaled
from impart_utils.retrieval import Retriever
from impart_utils.sources.checkpoints import TINY_PATH
from impart_utils.sources.features import Pack, save_pack
from impart_utils.zeroshot import accuracy, predict

needs_weights = pytest.mark.skipif(not TINY_PATH.is_file(), reason="data/toy_clip.safetensors isn't here")


def forget():
    """What a new kernel doesn't know: only the disk is left."""
    for function in (cached._clip, cached.test_set, cached.pair_pool):
        function.cache_clear()


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "output"))
    forget()
    yield tmp_path / "output"
    forget()


class FakeClip:
    """Colors and letters to three numbers, so that tests need no weights; counts what it encodes."""

    name, dim, key, provenance = "fake", 3, "fake-key", "fake weights"
    prepare = None  # pictures reach encode_images as they are

    def __init__(self):
        self.images = self.texts = 0

    def encode_images(self, pictures):
        self.images += len(pictures)
        return np.array(
            [np.asarray(picture).reshape(-1, 3).mean(axis=0) + 1 for picture in pictures], np.float32
        )

    def encode_texts(self, texts):
        self.texts += len(texts)
        return np.array(
            [[len(text) + 1, text.count("e") + 2, sum(map(ord, text)) % 17 + 3] for text in texts], np.float32
        )


@pytest.fixture
def fake(monkeypatch):
    clip = FakeClip()
    monkeypatch.setattr(cached, "clip", lambda config: clip)
    return clip


def color(row):
    return (17 * row % 256, 90 + row, 255 - 11 * row % 256)


def save_picture(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 5), color(row)).save(path)


@pytest.fixture
def pictures(tmp_path):
    """A folder data set: cat 0, 1, 2 and dog 3, 4."""
    for row in range(5):
        save_picture(tmp_path / "pets" / ("cat" if row < 3 else "dog") / f"{row}.png", row)
    return tmp_path / "pets"


def make_pairs(folder, count=30, captions=None):
    for row in range(count):
        save_picture(folder / f"{row}.png", row)
    captions = captions or [f"caption number {row}" for row in range(count)]
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["license", "file", "caption", "page"])
        writer.writerows([f"BY {row}", f"{row}.png", captions[row], f"page {row}"] for row in range(count))
    return folder


def settings(reference, **changes):
    return load_config(
        "paper",
        **{
            "reference": f"folder:{reference}",
            "references": 10,
            "pairs": 25,
            "top_k": 4,
            "ram_epochs": 1,
            **changes,
        },
    )


# ---- test sets ----

def test_a_test_set_holds_what_the_encoder_gives(fake, pictures):
    test = cached.test_set(load_config("paper"), f"folder:{pictures}")
    np.testing.assert_allclose(test.image_features, [np.array(color(row)) + 1 for row in range(5)])
    np.testing.assert_array_equal(test.labels, [0, 0, 0, 1, 1])
    assert (test.class_names, test.title, test.weights, test.n_available) == (
        ["cat", "dog"],
        "pets",
        "fake weights",
        5,
    )
    prompts = fake.encode_texts(["a photo of a cat", "a photo of a dog"])
    np.testing.assert_allclose(
        test.class_features, prompts / np.linalg.norm(prompts, axis=1, keepdims=True), rtol=1e-6
    )
    assert test.prompts == "a photo of a {}"


def test_a_test_set_is_encoded_once(fake, pictures, output):
    config = load_config("paper")
    first = cached.test_set(config, f"folder:{pictures}")
    assert cached.test_set(config, f"folder:{pictures}") is first and fake.images == 5  # within a kernel
    forget()
    again = cached.test_set(config, f"folder:{pictures}")
    assert again is not first and fake.images == 5  # and between kernels
    np.testing.assert_array_equal(again.image_features, first.image_features)
    assert again.key == first.key and again.ids == first.ids
    assert list((output / "data" / "cache").iterdir())


def test_other_weights_are_encoded_anew(fake, pictures):
    cached.test_set(load_config("paper"), f"folder:{pictures}")
    forget()
    fake.key = "other-key"
    cached.test_set(load_config("paper"), f"folder:{pictures}")
    assert fake.images == 10


def test_a_limit_is_encoded_as_a_set_of_its_own(fake, pictures):
    test = cached.test_set(load_config("paper", limit=3), f"folder:{pictures}")
    whole = cached.test_set(load_config("paper"), f"folder:{pictures}")
    assert (
        len(test.image_features) == 3
        and test.n_available == 5
        and "a subset of 3 of 5 pictures" in test.notes
    )
    rows = [whole.ids.index(name) for name in test.ids]
    np.testing.assert_array_equal(test.image_features, whole.image_features[rows])
    np.testing.assert_array_equal(test.labels, whole.labels[rows])


def test_broken_pictures_are_left_out_with_their_labels_and_said(fake, pictures):
    (pictures / "cat" / "1.png").write_bytes(b"broken")
    test = cached.test_set(load_config("paper"), f"folder:{pictures}")
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1])
    np.testing.assert_allclose(test.image_features, [np.array(color(row)) + 1 for row in (0, 2, 3, 4)])
    assert test.ids == ["cat/0.png", "cat/2.png", "dog/3.png", "dog/4.png"] and test.n_available == 5
    assert any(
        "1 pictures can't be opened, the first: cat/1.png (UnidentifiedImageError" in note
        for note in test.notes
    )


def test_a_mended_picture_is_taken_in(fake, pictures):
    (pictures / "cat" / "1.png").write_bytes(b"broken")
    cached.test_set(load_config("paper"), f"folder:{pictures}")
    forget()
    save_picture(pictures / "cat" / "1.png", 1)
    assert len(cached.test_set(load_config("paper"), f"folder:{pictures}").labels) == 5


def test_a_changed_picture_is_encoded_anew(fake, pictures):
    cached.test_set(load_config("paper"), f"folder:{pictures}")
    forget()
    Image.new("RGB", (50, 50), (1, 2, 3)).save(pictures / "cat" / "1.png")
    test = cached.test_set(load_config("paper"), f"folder:{pictures}")
    np.testing.assert_allclose(test.image_features[1], [2, 3, 4])


def test_key_of_a_test_set_depends_on_its_content(fake, pictures):
    first = cached.test_set(load_config("paper"), f"folder:{pictures}")
    other = cached.test_set(load_config("paper", limit=4), f"folder:{pictures}")
    assert first.key != other.key


# ---- image-text pairs ----

def test_pairs_of_a_folder(fake, tmp_path):
    captions = [f"caption number {row}" for row in range(30)]
    captions[3], captions[4], captions[5] = "", "None", 'with, comma "and" quotes\nand a line'
    pool = cached.pair_pool(settings(make_pairs(tmp_path / "yfcc", captions=captions)))
    assert pool.captions == captions and pool.ids == [f"{row}.png" for row in range(30)]
    np.testing.assert_allclose(pool.image_features, [np.array(color(row)) + 1 for row in range(30)])
    np.testing.assert_array_equal(pool.text_features, fake.encode_texts(captions))
    assert pool.metadata["columns"] == {"license": [f"BY {row}" for row in range(30)],
                                        "page": [f"page {row}" for row in range(30)]}
    assert pool.metadata["model"] == "fake weights" and pool.metadata["source"] == "the folder yfcc"


def test_pairs_are_encoded_once_and_texts_anew_where_captions_change(fake, tmp_path):
    folder = make_pairs(tmp_path / "yfcc")
    first = cached.pair_pool(settings(folder))
    forget()
    assert cached.pair_pool(settings(folder)).key == first.key
    assert (fake.images, fake.texts) == (30, 30)
    forget()
    make_pairs(folder, captions=[f"another one {row}" for row in range(30)])
    other = cached.pair_pool(settings(folder))
    np.testing.assert_array_equal(other.text_features, fake.encode_texts(other.captions))
    assert other.captions[0] == "another one 0"


def test_a_pair_with_a_broken_picture_leaves_with_its_caption(fake, tmp_path):
    folder = make_pairs(tmp_path / "yfcc")
    (folder / "7.png").write_bytes(b"broken")
    pool = cached.pair_pool(settings(folder))
    kept = [row for row in range(30) if row != 7]
    assert pool.ids == [f"{row}.png" for row in kept] and pool.captions == [
        f"caption number {row}" for row in kept
    ]
    assert pool.metadata["columns"]["license"] == [f"BY {row}" for row in kept]
    np.testing.assert_allclose(pool.image_features, [np.array(color(row)) + 1 for row in kept])
    np.testing.assert_array_equal(pool.text_features, fake.encode_texts(pool.captions))
    assert list(pool.metadata["skipped"]) == ["7.png"]


def test_two_folders_of_one_name_are_two_sets(fake, tmp_path):
    first, second = make_pairs(tmp_path / "a" / "yfcc"), make_pairs(tmp_path / "b" / "yfcc")
    for row in range(30):
        Image.new("RGB", (9, 9), (3, 2, row)).save(second / f"{row}.png")
    cached.pair_pool(settings(first))
    pool = cached.pair_pool(settings(second))
    np.testing.assert_allclose(pool.image_features, [[4, 3, row + 1] for row in range(30)])


def test_a_folder_that_is_no_reference_set(fake, tmp_path):
    with pytest.raises(
        MissingInput, match="no reference set in .*nowhere .captions.csv is missing.*reference=pack:FILE"
    ):
        cached.pair_pool(settings(tmp_path / "nowhere"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "captions.csv").write_text("file,text\na.png,hello\n")
    with pytest.raises(
        ValueError, match="captions.csv: expected the columns file and caption, caption is missing"
    ):
        cached.pair_pool(settings(tmp_path / "odd"))


@pytest.mark.parametrize("reference", ["yfcc", "pack:", "folder:", "toys", ""])
def test_unknown_references_list_the_known(reference):
    with pytest.raises(
        ValueError, match=f"Unknown reference '{reference}.*'. Known: toy, pack:FILE, .*folder:PATH"
    ):
        cached.pair_pool(load_config("paper", reference=reference))


def test_references_and_training_pairs(fake, tmp_path):
    folder = make_pairs(tmp_path / "yfcc")
    references, training = cached.reference_pairs(settings(folder))
    assert (len(references), len(training)) == (10, 15)  # 25 pairs of the 30
    assert not set(references.ids) & set(training.ids)
    other, _ = cached.reference_pairs(settings(folder), draw=1)
    assert set(other.ids) != set(references.ids)
    another_seed, _ = cached.reference_pairs(settings(folder, seed=1))
    assert set(another_seed.ids) != set(references.ids)
    _, all_others = cached.reference_pairs(settings(folder, pairs=1000))
    assert len(all_others) == 20  # as many as there are
    with pytest.raises(ValueError, match="got references=31 with 30 pairs"):
        cached.reference_pairs(settings(folder, references=31, pairs=31))


# ---- neighbors and RAM ----

def queries_of(pairs):
    return SimpleNamespace(image_features=pairs.image_features, key=pairs.key, weights="fake weights")


def test_neighbors_equal_the_retriever_and_are_found_again(fake, tmp_path, monkeypatch):
    config = settings(make_pairs(tmp_path / "yfcc"))
    references, training = cached.reference_pairs(config)
    similarities, indices = cached.neighbors(config, training, references)
    expected = Retriever(references.image_features).search(training.image_features, 4)
    np.testing.assert_array_equal(similarities, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    more = cached.neighbors(settings(tmp_path / "yfcc", top_k=6), training, references)[1]
    assert more.shape == (15, 6)
    other_references, other_training = cached.reference_pairs(config, draw=1)
    other = cached.neighbors(config, other_training, other_references)[1]
    np.testing.assert_array_equal(other, Retriever(other_references.image_features).search(
        other_training.image_features, 4)[1])
    monkeypatch.setattr(cached, "Retriever", None)  # from here on only the disk can answer
    np.testing.assert_array_equal(cached.neighbors(config, training, references)[1], indices)
    np.testing.assert_array_equal(cached.neighbors(config, other_training, other_references)[1], other)


def test_queries_and_references_of_different_weights_are_refused(fake, tmp_path, pictures):
    config = settings(make_pairs(tmp_path / "yfcc"))
    references, _ = cached.reference_pairs(config)
    fake.provenance = "OpenAI ViT-B/16"
    test = cached.test_set(config, f"folder:{pictures}")
    with pytest.raises(
        ValueError, match="'OpenAI ViT-B/16', the references' from 'fake weights'.*mean nothing"
    ):
        cached.neighbors(config, test, references)


def test_ram_is_trained_once(fake, tmp_path, monkeypatch):
    config = settings(make_pairs(tmp_path / "yfcc"))

    def train(**arguments):
        return cached.trained_ram(config, **{"scale": "raw", "heads": 1, **arguments})  # 3 = 1 head x 3

    ram, history = train()
    assert len(history) == 1 and history[0]["epoch"] == 1 and not ram.training
    seeds = [train(seed=seed)[1] for seed in (1, 2)]
    others = [train(**change)[1] for change in (
        {"scale": "unit"}, {"normalize": "branch"}, {"draw": 1}, {"pairs": 10}, {"configuration": "no_relu"},
        {"neighbors_from": "training"}, {"temperature": 0.5})]
    losses = [rows[0]["loss"] for rows in (history, *seeds, *others)]
    assert len(set(losses)) == 10  # each is a run of its own
    held_out = train(validation=5)[1]  # of 15 pairs: trains on the first 10
    assert held_out[0]["loss"] == others[3][0]["loss"] and held_out[0]["validation_loss"] > 0
    monkeypatch.setattr(ram_jobs, "train_ram", None)
    again, again_history = train()
    assert again_history == history
    for name, value in ram.state_dict().items():
        assert (again.state_dict()[name] == value).all(), name
    assert train(seed=2)[1] == seeds[1]
    assert train(normalize="none")[1] == history  # what the configuration says anyway
    assert train(configuration="branch")[1] == others[1]


def test_scores_after_each_epoch_do_not_change_the_training(fake, tmp_path, pictures, monkeypatch):
    config = settings(make_pairs(tmp_path / "yfcc"), ram_epochs=2)
    name = f"folder:{pictures}"
    plain_ram, plain = cached.trained_ram(config, heads=1)
    scored_ram, scored = cached.trained_ram(config, heads=1, evaluate=(name,))
    assert [row["epoch"] for row in scored] == [0, 1, 2] and "loss" not in scored[0]
    assert [row["epoch"] for row in plain] == [1, 2] and not any("tests" in row for row in plain)
    assert [row["loss"] for row in scored[1:]] == [row["loss"] for row in plain]
    for key, value in plain_ram.state_dict().items():
        assert (scored_ram.state_dict()[key] == value).all(), key
    test = cached.test_set(config, name)
    augmented = cached.ram_features(config, test, heads=1)
    right = accuracy(predict(augmented, test.class_features), test.labels)
    assert scored[2]["tests"][test.name]["accuracy"] == right
    monkeypatch.setattr(ram_jobs, "train_ram", None)  # what is known suffices for less
    last = cached.trained_ram(config, heads=1, evaluate=(name,), curve=False)[1]
    assert [row.get("tests") for row in last] == [None, scored[2]["tests"]]
    assert len(cached.trained_ram(config, heads=1)[1]) == 2


def test_ram_features_are_rams_output(fake, tmp_path, pictures):
    config = settings(make_pairs(tmp_path / "yfcc"))
    test = cached.test_set(config, f"folder:{pictures}")
    result = cached.ram_features(config, test, scale="unit", normalize="sum", heads=1)
    references, _ = cached.reference_pairs(config)
    ram, _ = cached.trained_ram(config, scale="unit", normalize="sum", heads=1)
    indices = Retriever(references.image_features).search(test.image_features, 4)[1]
    v, R_img, R_txt = scaled(test.image_features, references, "unit")
    np.testing.assert_array_equal(result, training.apply_ram(ram, v, R_img, R_txt, indices))


def test_right_answers_are_those_of_rams_output(fake, tmp_path, pictures, monkeypatch):
    config = settings(make_pairs(tmp_path / "yfcc"))
    name = f"folder:{pictures}"
    right, test = cached.ram_right(config, name, normalize="branch", heads=1), cached.test_set(config, name)
    augmented = cached.ram_features(config, test, normalize="branch", heads=1)
    np.testing.assert_array_equal(right, predict(augmented, test.class_features) == test.labels)
    assert right.dtype == bool and 0 < right.sum() < len(right)
    monkeypatch.setattr(ram_jobs, "apply_ram", None)  # they are kept, not computed again
    np.testing.assert_array_equal(cached.ram_right(config, name, normalize="branch", heads=1), right)


def test_neighbors_of_training_pairs_among_themselves_leave_their_own_out(fake, tmp_path):
    config = settings(make_pairs(tmp_path / "yfcc"))
    references, pairs = cached.reference_pairs(config)
    similarities, indices = cached.training_neighbors(config, references, pairs, "training")
    v = pairs.image_features / np.linalg.norm(pairs.image_features, axis=1, keepdims=True)
    cosines = v @ v.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :4], atol=1e-6)
    assert not (indices == np.arange(len(pairs))[:, None]).any()
    held_apart = cached.training_neighbors(config, references, pairs)[1]
    np.testing.assert_array_equal(held_apart, cached.neighbors(config, pairs, references)[1])
    with pytest.raises(ValueError, match="neighbors_from='test'. Known: 'references', 'training'"):
        cached.training_neighbors(config, references, pairs, "test")


def test_pairs_that_are_not_there(fake, tmp_path):
    config = settings(make_pairs(tmp_path / "yfcc"))
    told = "Expected pairs from 1 to 15, the training pairs, and validation below pairs, got pairs="
    for pairs, validation in ((16, 0), (0, 0), (10, 10)):
        with pytest.raises(ValueError, match=f"{told}{pairs} and validation={validation}"):
            cached.trained_ram(config, heads=1, pairs=pairs, validation=validation)
    with pytest.raises(ValueError, match="No pairs are left to train RAM"):
        cached.trained_ram(settings(tmp_path / "yfcc", references=25), heads=1)
    with pytest.raises(ValueError, match="Unknown configuration 'papers'. Known: paper_code, branch"):
        cached.trained_ram(config, configuration="papers")


# ---- feature packs alone ----

@pytest.fixture
def packs(tmp_path):
    """A test set and pairs of 16 dimensions as packs."""
    rng = np.random.default_rng(0)
    save_pack(
        tmp_path / "birds_test.safetensors",
        Pack(
            3 * rng.normal(size=(12, 16)).astype(np.float32),
            [f"t{row}" for row in range(12)],
            "OpenAI CLIP ViT-B/32",
            labels=np.arange(12) % 3,
            class_names=list("abc"),
            prompts=["a a", "a b", "a c"],
            class_features=2 * rng.normal(size=(3, 16)).astype(np.float32),
        ),
    )
    x = 3 * rng.normal(size=(40, 16)).astype(np.float32)
    ReferenceSet(x, x[::-1].copy(), [f"c{row}" for row in range(40)], [f"r{row}" for row in range(40)],
                 {"model": "OpenAI ViT-B/32"}).save(tmp_path / "pairs.safetensors")
    return f"pack:{tmp_path / 'birds_test.safetensors'}", f"pack:{tmp_path / 'pairs.safetensors'}"


@pytest.fixture
def no_clip(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("CLIP was loaded, though all features are in packs")

    monkeypatch.setattr(clip_model, "load_clip", refuse)


def test_packs_need_no_clip(packs, no_clip):
    config = load_config(
        "paper", datasets=packs[0], reference=packs[1], references=20, pairs=36, ram_epochs=1,
        prompts="stored"
    )
    test = cached.test_set(config, config.datasets[0])
    references, training_pairs = cached.reference_pairs(config)
    _, indices = cached.neighbors(config, test, references)  # "OpenAI CLIP ViT-B/32" is "OpenAI ViT-B/32"
    assert indices.shape == (12, 8) and (len(references), len(training_pairs)) == (20, 16)
    assert cached.ram_features(config, test, scale=cached.ram_scale(config)).shape == (12, 16)
    assert (test.title, test.name, test.n_available) == ("birds", "pack:birds_test.safetensors", 12)
    assert test.prompts == "as stored: 'a a', 'a b', …" and test.weights == "OpenAI CLIP ViT-B/32"
    np.testing.assert_allclose(np.linalg.norm(test.class_features, axis=1), 1, atol=1e-6)


def test_a_limit_takes_a_fair_subset_of_a_pack_and_says_so(packs):
    config = load_config("paper", datasets=packs[0], limit=5, prompts="stored")
    test = cached.test_set(config, config.datasets[0])
    whole = cached.test_set(load_config("paper", prompts="stored"), config.datasets[0])
    assert (
        len(test.labels) == 5 and test.n_available == 12 and any("subset of 5" in note for note in test.notes)
    )
    rows = [whole.ids.index(name) for name in test.ids]
    np.testing.assert_array_equal(test.image_features, whole.image_features[rows])
    np.testing.assert_array_equal(test.labels, whole.labels[rows])
    assert test.ids != whole.ids[:5]  # a pack sorted by class would lose classes


def test_a_limit_that_cuts_nothing_of_a_pack_is_no_subset(packs):
    test = cached.test_set(load_config("paper", limit=12, prompts="stored"), packs[0])
    assert not any("subset" in note for note in test.notes)


def test_a_pack_of_pairs_is_no_test_set(packs):
    with pytest.raises(ValueError, match="pairs.safetensors has no labels or no class features"):
        cached.test_set(load_config("paper"), packs[1])


def test_scales_that_ram_can_have(packs, tmp_path):
    config = load_config("paper", datasets=packs[0], reference=packs[1], references=20, pairs=36,
                         prompts="stored")
    assert cached.ram_scales(config) == ("raw", "unit") and cached.ram_scale(config) == "raw"
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    ReferenceSet(x, x, [""] * 40, list(map(str, range(40)))).save(tmp_path / "unit.safetensors")
    config = load_config("paper", datasets=packs[0], reference=f"pack:{tmp_path / 'unit.safetensors'}",
                         prompts="stored")
    assert cached.ram_scales(config) == ("unit",) and cached.ram_scale(config) == "unit"


# ---- pictures for showing, and the record of inputs ----

def test_pictures_behind_ids(fake, tmp_path, pictures, packs):
    folder = make_pairs(tmp_path / "yfcc")
    shown = cached.pictures_of(settings(folder), ["7.png", "2.png"])
    assert [picture.getpixel((0, 0)) for picture in shown] == [color(7), color(2)]
    grey = cached.pictures_of(load_config("paper", reference=packs[1]), ["r3"])
    assert grey[0].size == (64, 64) and len(grey) == 1
    shown = cached.test_pictures(load_config("paper"), f"folder:{pictures}", np.array([4, 0]))
    assert [picture.getpixel((0, 0)) for picture in shown] == [color(4), color(0)]
    assert len(cached.test_pictures(load_config("paper", prompts="stored"), packs[0], [1, 2, 3])) == 3


def test_test_pictures_stay_with_their_rows_where_one_is_broken(fake, pictures):
    """Row r of a test set's features is row r of what is shown, though a broken picture was left out."""
    (pictures / "cat" / "1.png").write_bytes(b"broken")
    test = cached.test_set(load_config("paper"), f"folder:{pictures}")
    shown = cached.test_pictures(load_config("paper"), f"folder:{pictures}", np.arange(4))
    colors = [np.array(picture.getpixel((0, 0))) + 1 for picture in shown]
    np.testing.assert_allclose(test.image_features, colors)


def test_inputs_of_several_notebooks_are_collected(output):
    import json

    config = load_config()
    cached.record_inputs(config, toy10="a", references="b")
    cached.record_inputs(config, toy10="c", films="d")
    path = output / "results" / "demo" / "inputs.json"
    assert json.loads(path.read_text()) == {"toy10": "c", "references": "b", "films": "d"}
    assert [entry.name for entry in path.parent.iterdir()] == ["inputs.json"]


# ---- the demo itself, small ----

@needs_weights
@pytest.mark.slow
def test_the_demo_is_the_same_from_disk(monkeypatch):
    config = load_config(pairs=300, references=100, limit=60, ram_epochs=1)

    def everything():
        references, training_pairs = cached.reference_pairs(config)
        test = cached.test_set(config, "toy10")
        ram, history = cached.trained_ram(config)
        return (
            references.key,
            training_pairs.key,
            test.key,
            cached.neighbors(config, test, references)[1].tolist(),
            history,
            cached.ram_features(config, test).tobytes(),
            test.notes,
        )

    first = everything()
    forget()

    def refuse(*arguments):
        raise AssertionError("encoded a second time")

    monkeypatch.setattr(clip_model.Clip, "encode_images", refuse)
    assert everything() == first
    references, training_pairs = cached.reference_pairs(config)
    assert (len(references), len(training_pairs)) == (100, 200)
    test = cached.test_set(config, "toy10")
    assert test.image_features.shape == (60, 64) and test.n_available >= 2000
    assert "a subset of 60" in first[-1][0] and "tiny CLIP" in test.weights
    assert set(references.metadata["columns"]["caption_kind"]) == {"full", "partial", "empty", "wrong"}
    assert len(cached.pictures_of(config, references.ids[:3])) == 3


@needs_weights
@pytest.mark.slow
def test_another_world_is_encoded_anew(monkeypatch):
    """Pictures drawn otherwise under the same ids must not get the old features."""
    from impart_utils.toy_world import scenes

    config = load_config(pairs=40, references=20, limit=10)
    first = cached.pair_pool(config)
    drawn = scenes.draw
    monkeypatch.setattr(scenes, "WORLD_VERSION", scenes.WORLD_VERSION + 1)
    monkeypatch.setattr(
        scenes, "draw", lambda scene, size=32: drawn(scene, size).transpose(Image.Transpose.ROTATE_90)
    )
    forget()
    assert cached.pair_pool(config).key != first.key


def test_weights_that_place_cifars_pictures_elsewhere_are_doubted():
    """Random features in place of the ten pictures that every ViT-B/32 of OpenAI's places alike."""
    from types import SimpleNamespace

    model = SimpleNamespace(name="ViT-B/32")
    ids = [f"cifar10-test-{number:05d}" for number in range(12)]
    features = np.random.default_rng(0).normal(size=(12, 512)).astype(np.float32)
    (note,) = cached._doubts(model, "cifar10", ids, features)
    assert note.startswith("the weights' pictures aren't OpenAI's: FAILED: 45 cosines")
    assert cached._doubts(model, "cifar100", ids, features) == []
    assert cached._doubts(model, "cifar10", ids[1:], features[1:]) == []  # a subset
    assert cached._doubts(SimpleNamespace(name="tiny"), "cifar10", ids, features) == []
