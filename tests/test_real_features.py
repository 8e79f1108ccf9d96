"""Real CLIP features (the shared data's, described in its README): known accuracies, and independent code."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart_utils import cached, clip_model
from impart_utils.config import load_config
from impart_utils.evidence import results
from impart_utils.preflight import reasons_to_skip, take_packs
from impart_utils.reference import from_pack, keeps_norms, split, vanilla_features
from impart_utils.retrieval import Retriever
from impart_utils.sources import checkpoints
from impart_utils.sources.features import load_pack
from impart_utils.vanilla import augment
from impart_utils.zeroshot import PAPER_TEMPLATE, accuracy, predict

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "clip_features"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared CLIP features aren't here")

PICTURES = FOLDER.parent / "cifar10_test"
CIFAR = FOLDER / "cifar10_test500_vitb32.npz"
UNSPLASH = f"{FOLDER / 'unsplash_photos_vitb32.npz'}+{FOLDER / 'text_vocab_vitb32.npz'}"
COCO = FOLDER / "coco_val2017_500pairs_vitb16.npz"
DRAWS = range(5)


@pytest.fixture(scope="module")
def cifar():
    return load_pack(CIFAR)


@pytest.fixture(scope="module")
def unsplash():
    return from_pack(load_pack(UNSPLASH), UNSPLASH)


# ---- the same, written anew: plain numpy in double precision, sharing no code with the package ----

def length_one(x):
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x * x).sum(axis=1))[:, None]


def brute_force_neighbors(queries, references, k):
    scores = length_one(queries) @ length_one(references).T
    return np.array([np.argsort(-row, kind="stable")[:k] for row in scores])


def brute_force_vanilla(v, R_img, R_txt, indices, w_img, w_txt):
    result = np.array(v, np.float64)
    for row, neighbors in enumerate(indices):
        for j in neighbors:
            result[row] += (
                w_img * np.asarray(R_img[j], np.float64) + w_txt * np.asarray(R_txt[j], np.float64)
            ) / len(neighbors)
    return result


def brute_force_classes(v, W):
    return np.array([int(np.argmax(length_one(W) @ row)) for row in v])


def test_features_as_the_readme_describes_them(cifar, unsplash):
    assert cifar.image_features.shape == (500, 512) and cifar.class_features.shape == (10, 512)
    assert cifar.class_names[1] == "automobile" and cifar.prompts[:2] == ["a airplane", "a car"]
    np.testing.assert_array_equal(
        cifar.labels[:4], [3, 8, 8, 0]
    )  # torchvision's own test order: cat, ship, ship, airplane
    assert len(unsplash) == 2959 and unsplash.captions[:2] == ["a Jellyfish", "a diving_board"]
    assert not keeps_norms(cifar.image_features) and not keeps_norms(unsplash.image_features)
    assert keeps_norms(cifar.class_features) and keeps_norms(unsplash.text_features)


def test_clip_on_500_pictures_of_cifar10(cifar):
    predictions = predict(cifar.image_features, cifar.class_features)
    assert (predictions == cifar.labels).sum() == 449
    assert accuracy(predictions, cifar.labels) == pytest.approx(0.898)


def photo_texts(class_names):
    """Real features of "a photo of a X" from the vocabulary, which calls two classes by other names."""
    with np.load(FOLDER / "text_vocab_vitb32.npz", allow_pickle=False) as file:
        vocabulary, vectors, prompt = file["labels_photo"], file["text_features_photo"], file["prompt_photo"]
    assert prompt[0] == PAPER_TEMPLATE
    asked = [{"automobile": "car", "ship": "boat"}.get(name, name) for name in class_names]
    return vectors[[np.flatnonzero(vocabulary == name)[0] for name in asked]].astype(np.float32)  # (c, 512)


def test_clip_with_the_papers_prompt(cifar):
    W = photo_texts(cifar.class_names)
    predictions = predict(cifar.image_features, W)
    assert (predictions == cifar.labels).sum() == 456
    np.testing.assert_array_equal(predictions, brute_force_classes(cifar.image_features, W))


class RealClip:
    """Returns ViT-B/32's own vectors: of the shared CIFAR pictures, known by their pixels, and of classes."""

    key, provenance, dim = "real", "OpenAI ViT-B/32", 512

    def __init__(self, cifar, texts):
        with np.load(CIFAR, allow_pickle=False) as file:
            paths = file["shared_path"]
        self.rows = {self.pixels(Image.open(PICTURES.parent / path)): row
                     for row, path in enumerate(paths) if path}
        self.vectors = cifar.image_features
        self.texts = {PAPER_TEMPLATE.format(name): text
                      for name, text in zip(cifar.class_names, texts, strict=True)}
        self.encoded = 0

    @staticmethod
    def pixels(picture):
        return np.asarray(picture.convert("RGB")).tobytes()

    prepare = None

    def encode_images(self, pictures):
        self.encoded += len(pictures)
        return self.vectors[[self.rows[self.pixels(picture)] for picture in pictures]]

    def encode_texts(self, texts):
        return np.array([self.texts[text] for text in texts])


@pytest.mark.skipif(not PICTURES.is_dir(), reason="the shared CIFAR pictures aren't here")
@pytest.mark.parametrize(("texts", "correct"), [("stored", 425), ("a photo of a X", 432)])
def test_the_picture_path_on_475_real_pictures(cifar, tmp_path, monkeypatch, texts, correct):
    """folder: -> ids -> features -> table with each picture's real vector: 89.5 % with the stored texts."""
    W = cifar.class_features if texts == "stored" else photo_texts(cifar.class_names)
    clip = RealClip(cifar, W)
    assert len(clip.rows) == 475
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setattr(cached, "clip", lambda config: clip)
    with np.load(CIFAR, allow_pickle=False) as file:
        known = {path.partition("/")[2]: row for row, path in enumerate(file["shared_path"].tolist()) if path}
    for path in known:
        (tmp_path / "cifar" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cifar" / path).symlink_to(PICTURES / path)
    config = load_config("paper", datasets=f"folder:{tmp_path / 'cifar'}")
    test = cached.test_set(config, config.datasets[0])
    assert test.ids == sorted(known) and test.class_names == cifar.class_names  # not torchvision's order
    rows = [known[name] for name in test.ids]
    np.testing.assert_array_equal(test.labels, cifar.labels[rows])
    np.testing.assert_array_equal(test.image_features, cifar.image_features[rows])
    right = predict(test.image_features, test.class_features) == test.labels
    row = results.classification_row(config, test, right, method="CLIP")
    path = tmp_path / "table1.csv"
    results.write_results([row], path, results.CLASSIFICATION_COLUMNS)
    table = results.read_results(path).iloc[0]
    assert (table["correct"], table["n"], table["n_available"]) == (correct, 475, 475)
    assert table["accuracy"] == pytest.approx(correct / 475) and table["prompts"] == PAPER_TEMPLATE
    assert clip.encoded == 475


def draw_accuracies(cifar, unsplash, **options):
    results = []
    for draw in DRAWS:
        references, _ = split(unsplash, 1000, seed=0, draw=draw)
        augmented = vanilla_features(cifar.image_features, references, **options)
        results.append(accuracy(predict(augmented, cifar.class_features), cifar.labels))
    return 100 * np.array(results)


def test_vanilla_stays_near_clip(cifar, unsplash):
    """README of the shared data: -0.32 with a standard deviation of 0.41 over draws of 1000 references."""
    change = draw_accuracies(cifar, unsplash) - 89.80
    assert change.min() >= -1.5 and change.max() <= 0.9, change
    assert -1.0 < change.mean() < 0.4
    assert change.std() > 0.1  # the draws are draws


def test_random_neighbors_do_worse_than_near_ones(cifar, unsplash):
    near, far = draw_accuracies(cifar, unsplash), []
    for draw in DRAWS:
        references, _ = split(unsplash, 1000, seed=0, draw=draw)
        indices = np.random.default_rng(draw).integers(0, 1000, (500, 8))
        augmented = vanilla_features(cifar.image_features, references, neighbor_indices=indices)
        far.append(100 * accuracy(predict(augmented, cifar.class_features), cifar.labels))
    assert np.mean(far) - 89.80 == pytest.approx(-1.80, abs=0.7)
    assert np.mean(near) > np.mean(far) + 0.5


def test_raw_texts_drown_the_query(cifar, unsplash):
    """README: the mixed scale falls to 83.80 at 0.5 / 0.05 and to 84.56 at 0.05 / 0.05."""
    assert draw_accuracies(cifar, unsplash, scale="mixed").mean() == pytest.approx(83.80, abs=1.2)
    small = draw_accuracies(cifar, unsplash, scale="mixed", image_weight=0.05, text_weight=0.05)
    assert small.mean() == pytest.approx(84.56, abs=1.2)


def test_raw_can_not_be_had_from_unit_features(cifar, unsplash):
    with pytest.raises(ValueError, match="the image and query features have unit length"):
        vanilla_features(cifar.image_features, unsplash, scale="raw")


@pytest.mark.parametrize("backend", ["sklearn", "torch"])
def test_retrieval_equals_independent_code(cifar, unsplash, backend):
    similarities, indices = Retriever(unsplash.image_features, backend=backend).search(
        cifar.image_features, 8
    )
    expected = brute_force_neighbors(cifar.image_features, unsplash.image_features, 8)
    np.testing.assert_array_equal(indices, expected)
    exact = length_one(cifar.image_features) @ length_one(unsplash.image_features).T
    np.testing.assert_allclose(similarities, np.take_along_axis(exact, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("scale", ["unit", "mixed"])
def test_predictions_equal_independent_code(cifar, unsplash, scale):
    references, _ = split(unsplash, 1000, seed=0, draw=3)
    v, R_img = length_one(cifar.image_features), length_one(references.image_features)
    R_txt = length_one(references.text_features) if scale == "unit" else references.text_features
    indices = brute_force_neighbors(cifar.image_features, references.image_features, 8)
    by_hand = brute_force_vanilla(v, R_img, R_txt, indices, 0.5, 0.05)
    augmented = vanilla_features(cifar.image_features, references, scale=scale)
    np.testing.assert_allclose(augmented, by_hand, atol=2e-6)
    plain = augment(v, R_img[indices], np.asarray(R_txt)[indices])
    np.testing.assert_allclose(plain, by_hand, atol=2e-6)
    np.testing.assert_array_equal(
        predict(augmented, cifar.class_features), brute_force_classes(by_hand, cifar.class_features)
    )


def test_leave_one_out_equals_independent_code(unsplash):
    references = unsplash.take(np.arange(400))
    _, indices = Retriever(references.image_features).search(
        references.image_features, 5, exclude=np.arange(400)
    )
    scores = length_one(references.image_features) @ length_one(references.image_features).T
    np.fill_diagonal(scores, -np.inf)
    np.testing.assert_array_equal(indices, np.argsort(-scores, axis=1, kind="stable")[:, :5])


def test_half_precision_features_as_stored_give_the_same_predictions(cifar):
    """Features straight out of a file, without load_pack: float16 isn't summed in float16."""
    with np.load(FOLDER / "unsplash_photos_vitb32.npz", allow_pickle=False) as file:
        R_img, index = file["image_features"], file["pseudo_text_index"]
    with np.load(FOLDER / "text_vocab_vitb32.npz", allow_pickle=False) as file:
        R_txt = file["text_features"][index]
    assert R_img.dtype == R_txt.dtype == np.float16
    v = cifar.image_features.astype(np.float16)
    _, indices = Retriever(R_img).search(v, 8)
    np.testing.assert_array_equal(indices, brute_force_neighbors(v, R_img, 8))
    augmented = augment(v, R_img[indices], R_txt[indices], image_weight=0.5, text_weight=0.005)
    by_hand = brute_force_vanilla(v, R_img, R_txt, indices, 0.5, 0.005)
    np.testing.assert_allclose(augmented, by_hand, atol=1e-5)
    expected = brute_force_classes(by_hand, cifar.class_features)
    np.testing.assert_array_equal(predict(augmented, cifar.class_features), expected)


def test_picture_to_caption_retrieval_on_coco_pairs():
    """README: R@1 66.16 % over draws of 250 pairs; Eq. 1 with the other 250 costs about 6 points."""
    pairs = from_pack(load_pack(COCO), COCO)
    assert len(pairs) == 500 and pairs.captions[1] == "A desk and chair in an office cubicle."
    assert pairs.ids[0] == "179765" and "ViT-B/16" in pairs.metadata["model"]
    clip, vanilla = [], []
    for draw in DRAWS:
        references, held_out = split(pairs, 250, seed=0, draw=draw)
        augmented = vanilla_features(held_out.image_features, references)
        clip.append(100 * np.mean(predict(held_out.image_features, held_out.text_features) == np.arange(250)))
        vanilla.append(100 * np.mean(predict(augmented, held_out.text_features) == np.arange(250)))
    assert np.mean(clip) == pytest.approx(66.16, abs=3)
    assert np.mean(vanilla) - np.mean(clip) == pytest.approx(-6.16, abs=3)


def test_pairs_of_other_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    config = load_config("paper", datasets=f"pack:{CIFAR}", reference=f"pack:{COCO}", references=100,
                         pairs=200, prompts="stored")
    references, _ = cached.reference_pairs(config)
    with pytest.raises(ValueError, match="ViT-B/32.*ViT-B/16.*mean nothing"):
        cached.neighbors(config, cached.test_set(config, config.datasets[0]), references)


def test_the_documented_settings_run_without_clip(tmp_path, monkeypatch):
    """reference=pack:…+…, datasets=pack:…: what notebooks 02 and 04 compute, without weights."""

    def refuse(*arguments, **options):
        raise AssertionError("CLIP was loaded")

    monkeypatch.setattr(clip_model, "load_clip", refuse)
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    config = load_config("paper", datasets=f"pack:{CIFAR}", reference=f"pack:{UNSPLASH}", prompts="stored")
    test = cached.test_set(config, config.datasets[0])
    assert test.weights == "OpenAI CLIP ViT-B/32" and test.prompts.startswith(
        "as stored: 'a airplane', 'a car'"
    )
    for draw in DRAWS:
        references, _ = cached.reference_pairs(config, draw)
        _, indices = cached.neighbors(config, test, references)
        augmented = vanilla_features(test.image_features, references, neighbor_indices=indices)
        change = 100 * accuracy(predict(augmented, test.class_features), test.labels) - 89.80
        assert len(references) == 1000 and -1.5 <= change <= 0.9


def test_a_run_finds_the_shared_packs_by_their_names(monkeypatch, tmp_path):
    """--features shared/data/clip_features --set reference=pack:…+…: 01 to 05 can run without weights."""
    monkeypatch.setattr(checkpoints, "clip_cache_path", lambda name: tmp_path / "nowhere.pt")
    config = load_config("paper", reference=f"pack:{UNSPLASH}")
    found = take_packs(FOLDER, config, given={"reference"})
    assert found.settings == {"datasets": f"pack:{CIFAR}"} and found.lacking.keys() == {"films"}
    config = load_config("paper", reference=f"pack:{UNSPLASH}", prompts="stored", **found.settings)
    reasons = reasons_to_skip(config, ["00", "01", "02", "03", "04", "05", "06"], found.lacking)
    assert sorted(reasons) == ["00", "06"]


def test_raw_vectors_of_photos():
    """130 photos with raw vectors (norm about 10): accuracy is the same for raw and unit vectors."""
    photos = load_pack(FOLDER / "photos130_vitb32.npz")
    assert keeps_norms(photos.image_features) and photos.ids[:2] == ["0057.png", "0058.png"]
    predictions = predict(photos.image_features, photos.class_features)
    v, W = photos.image_features, photos.class_features
    np.testing.assert_array_equal(predictions, brute_force_classes(v, W))
    np.testing.assert_array_equal(predictions, predict(length_one(v), W))
    assert (predictions == photos.labels).sum() == 122 and len(predictions) == 130  # 93.8 %


def test_texts_alone_are_no_pack():
    with pytest.raises(ValueError, match="an array image_features in .*text_vocab_vitb32.npz, found"):
        load_pack(FOLDER / "text_vocab_vitb32.npz")
