"""The second check of weights: OpenAI's real vectors pass, everything else fails, and the words say which."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart_utils.sources import clip_checks
from impart_utils.sources.clip_checks import (
    CIFAR_COSINES,
    NAMES,
    PROMPTS,
    TEXT_COSINES,
    Check,
    check_cifar_pictures,
    check_samples,
    check_texts,
    with_verdict,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not (SHARED / "clip_features").is_dir(),
                          reason="the shared CLIP features aren't here")


@pytest.fixture(scope="module")
def texts():
    """OpenAI ViT-B/32's own vectors of the ten prompts, (10, 512)."""
    with np.load(SHARED / "clip_features" / "text_vocab_vitb32.npz", allow_pickle=False) as file:
        assert file["prompt_photo"][0] == "a photo of a {}"
        labels = list(file["labels_photo"])
        return file["text_features_photo"][[labels.index(name) for name in NAMES]].astype(np.float64)


@pytest.fixture(scope="module")
def pictures():
    """OpenAI ViT-B/32's own vectors of CIFAR-10's test pictures 0 to 9, (10, 512)."""
    with np.load(SHARED / "clip_features" / "cifar10_test500_vitb32.npz", allow_pickle=False) as file:
        rows = [list(file["cifar10_test_index"]).index(number) for number in range(10)]
        return file["image_features"][rows].astype(np.float64)


def slow_cosines(vectors):
    """The 45 cosines, one after the other."""
    found = []
    for i in range(10):
        for j in range(i + 1, 10):
            dot = sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
            found.append(dot / (sum(a * a for a in vectors[i]) * sum(b * b for b in vectors[j])) ** 0.5)
    return found


# ---- the tables ----

@real
def test_the_tables_are_computed_from_the_sources_they_name(texts, pictures):
    for table, vectors in ((TEXT_COSINES, texts), (CIFAR_COSINES, pictures)):
        assert [len(row) for row in table] == list(range(9, 0, -1))
        np.testing.assert_allclose(np.concatenate(table), slow_cosines(vectors), atol=5.1e-5)


def test_the_prompts_are_ten_and_spread():
    assert len(set(PROMPTS)) == 10 and PROMPTS[2] == "a photo of a dog"
    cosines = np.concatenate(TEXT_COSINES)
    assert cosines.min() < 0.65 and cosines.max() > 0.94 and cosines.std() > 0.07


# ---- texts ----

@real
def test_the_real_vectors_pass_whatever_their_norms(texts):
    asked = []
    check = check_texts(lambda prompts: asked.append(prompts) or texts)
    assert check.passed and check.largest < 1e-4 and asked == [list(PROMPTS)]
    scaled = texts * np.random.default_rng(0).uniform(0.1, 10, (10, 1))
    assert check_texts(lambda _: scaled.astype(np.float32)).largest < 1e-4
    assert check_texts(lambda _: texts.astype(np.float16)).passed
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(512, 512)))[0]
    assert check_texts(lambda _: texts @ rotation).passed  # angles only: a turned space is the same CLIP


def vectors_with(cosines):
    """Ten vectors with the given 45 cosines."""
    matrix = np.eye(10)
    matrix[np.triu_indices(10, 1)] = cosines
    return np.linalg.cholesky(matrix + np.triu(matrix, 1).T)


def test_a_difference_is_measured_and_its_place_named():
    cosines = np.concatenate(TEXT_COSINES)
    cosines[9 + NAMES.index("kitten") - 2] -= 0.02  # the second row: cat with dog, guitar, horse, kitten
    check = check_texts(lambda _: vectors_with(cosines))
    assert check.largest == pytest.approx(0.02) and not check.passed
    assert str(check) == ("FAILED: 45 cosines of ten texts: largest difference 0.0200 (cat and kitten), "
                          "allowed 0.005")
    assert check_texts(lambda _: vectors_with(cosines), tolerance=0.021).passed


@real
@pytest.mark.parametrize("fault", [
    lambda x, rng: x[rng.permutation(10)],                                       # another order of texts
    lambda x, rng: np.vstack([x[:9], x[:1]]),                                    # a text encoded twice
    lambda x, rng: np.sign(x) * np.abs(x) ** 1.1,                                # bent by another activation
    lambda x, rng: x + rng.normal(0, np.abs(x).mean() / 2, x.shape),             # noise
    lambda x, rng: np.maximum(x, 0), lambda x, rng: x - x.mean(axis=0), lambda x, rng: np.zeros_like(x),
    lambda x, rng: np.where(np.arange(10)[:, None] == 4, np.nan, x), lambda x, rng: rng.normal(size=x.shape),
    lambda x, rng: x[:, :-100],                                                  # a part of the vector
])
def test_whatever_is_not_openais_fails(texts, fault):
    check = check_texts(lambda _: fault(texts, np.random.default_rng(0)))
    assert not check.passed


@real
@pytest.mark.parametrize(("bits", "most"), [(10, 2e-4), (7, 1e-3)])
def test_the_tolerance_is_far_above_rounding(texts, bits, most):
    """Coordinates of the real vectors rounded to the mantissas of fp16 and of bf16."""
    exponent = np.floor(np.log2(np.abs(texts)))
    rounded = np.round(texts / 2.0**exponent * 2**bits) / 2**bits * 2.0**exponent
    assert check_texts(lambda _: rounded).largest < most < clip_checks.TEXT_TOLERANCE


def test_the_wrong_number_of_rows_is_no_failure_but_an_error():
    with pytest.raises(ValueError, match=r"Expected features of shape \(10, d\) for the 45 cosines of ten "
                                         r"texts, got \(9, 4\)"):
        check_texts(lambda _: np.ones((9, 4)))
    with pytest.raises(ValueError, match=r"test pictures 0 to 9, got \(10,\)"):
        check_cifar_pictures(np.ones(10))


def test_no_number_is_no_pass():
    assert not Check("x", float("nan"), "a", 1.0).passed
    assert Check("x", 0.1, "a", 0.1).passed and not Check("x", 0.11, "a", 0.1).passed


# ---- CIFAR-10 ----

@real
def test_the_real_pictures_pass_and_others_fail(pictures):
    check = check_cifar_pictures(pictures)
    assert check.passed and check.largest < 1e-4
    noise = np.random.default_rng(0).normal(size=pictures.shape)
    noise *= np.linalg.norm(pictures) / np.linalg.norm(noise)
    assert check_cifar_pictures(pictures + 0.05 * noise).passed  # another library's resizing
    assert not check_cifar_pictures(pictures + 0.5 * noise).passed
    shifted = check_cifar_pictures(np.roll(pictures, 1, axis=0))
    assert not shifted.passed and shifted.where.startswith("picture ")


# ---- the paper's own pictures ----

@pytest.fixture
def samples(tmp_path):
    """Two pictures of our own in place of the paper's, and an .npz of the same form as the paper's."""
    rng, hashes = np.random.default_rng(0), []
    for name in ("dog.jpg", "car.jpg"):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(out, "WEBP", lossless=True)
        (tmp_path / name).write_bytes(out.getvalue())  # WEBP under a .jpg name, as the paper's are
        hashes.append(hashlib.sha256(out.getvalue()).hexdigest())
    vectors = rng.normal(size=(2, 512)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image_raw=vectors, image_names=["dog.jpg", "car.jpg"],
             image_sha256=hashes)
    return tmp_path, vectors


def test_the_papers_pictures_are_compared_with_their_stored_features(samples):
    folder, vectors = samples
    seen = []
    check = check_samples(lambda given: seen.extend(picture.convert("RGB").size for picture in given)
                          or vectors * 3, folder / "samples.npz", folder)
    assert check.passed and check.largest < 1e-6 and seen == [(30, 20)] * 2
    other = vectors.copy()
    other[1, :50] += 1
    check = check_samples(lambda _: other, folder / "samples.npz", folder)
    cosine = other[1] @ vectors[1] / np.linalg.norm(other[1]) / np.linalg.norm(vectors[1])
    assert not check.passed and check.where == "car.jpg"
    assert check.largest == pytest.approx(1 - cosine, abs=1e-6)


def test_another_picture_under_the_same_name_is_an_error(samples):
    folder, vectors = samples
    (folder / "car.jpg").write_bytes((folder / "dog.jpg").read_bytes())
    with pytest.raises(ValueError, match="car.jpg isn't the picture whose features samples.npz holds: "):
        check_samples(lambda _: vectors, folder / "samples.npz", folder)
    (folder / "car.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="car.jpg"):
        check_samples(lambda _: vectors, folder / "samples.npz", folder)


def test_features_of_another_size_and_another_npz_are_errors(samples):
    folder, vectors = samples
    with pytest.raises(ValueError, match=r"Expected features of shape \(2, 512\).*got \(2, 64\)"):
        check_samples(lambda _: vectors[:, :64], folder / "samples.npz", folder)
    np.savez(folder / "other.npz", image_raw=vectors)
    with pytest.raises(ValueError, match="other.npz has no image_names, image_sha256. Expected clip_vitb32"):
        check_samples(lambda _: vectors, folder / "other.npz", folder)


@real
def test_the_shared_file_has_the_form_that_is_read():
    with np.load(SHARED / "clip_vitb32_samples.npz", allow_pickle=False) as file:
        assert file["image_raw"].shape == (2, 512) and list(file["image_names"]) == ["dog.jpg", "car.jpg"]
        assert [len(sha256) for sha256 in file["image_sha256"]] == [64, 64]


# ---- the verdict in words ----

@real
def test_the_words_of_the_verdict(texts):
    def good(prompts):
        return texts

    def bad(prompts):
        return np.random.default_rng(0).normal(size=(10, 512))

    assert with_verdict("OpenAI ViT-B/32", good, official=True) == "OpenAI ViT-B/32"
    with pytest.raises(ValueError, match="The weights are those of OpenAI ViT-B/32, but their features are "
                                         "not: FAILED: 45 cosines.*installation is broken; install clip"):
        with_verdict("OpenAI ViT-B/32", bad, official=True)
    assert with_verdict("unverified weights", good, official=False) == (
        "unverified weights; the 45 cosines of ten texts agree with OpenAI's")
    largest = check_texts(bad).largest
    assert with_verdict("unverified weights", bad, official=False) == (
        f"unverified weights; its texts differ from OpenAI's by up to {largest:.2f} in cosine")


def test_the_tolerances_are_those_that_were_set_before():
    assert (clip_checks.TEXT_TOLERANCE, clip_checks.CIFAR_TOLERANCE, clip_checks.SAMPLE_TOLERANCE) == (
        5e-3, 1e-2, 1e-3)
