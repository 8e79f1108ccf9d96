"""Loading and running CLIP: equal to OpenAI's own forward pass, whatever the batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from impart_utils.clip_model import load_clip
from impart_utils.sources import checkpoints
from impart_utils.sources.features import file_hash

pytestmark = pytest.mark.filterwarnings("ignore")  # pkg_resources and torch.jit announce their end

SIZES = {  # clip.model.CLIP's arguments: a vision transformer and a ResNet tower, as small as they go
    "vit": (32, 32, 2, 64, 8, 77, 49408, 64, 1, 2),
    "resnet": (64, 32, (1, 1, 1, 1), 16, None, 77, 49408, 64, 1, 2),
}
TEXTS = [
    "a photo of a cat",
    "",
    "word " * 300,
    "a",
    "an old red boat by the sea, seen from above in the evening light",
    "été — 猫 🐈",
    "a photo of a dog",
    " ".join(["dog"] * 75),
    " ".join(["dog"] * 76),
]


def random_weights(kind, seed=0):
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(*SIZES[kind]).float().eval()
        for name, value in model.state_dict().items():  # norms and biases that aren't all 1 and 0
            if value.is_floating_point() and value.ndim == 1 and not name.endswith("running_var"):
                value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module", params=["vit", "resnet"])
def pair(request, tmp_path_factory):
    """(OpenAI's class with random weights, the same weights loaded from a file by the kit)."""
    original, path = random_weights(request.param), tmp_path_factory.mktemp("clip") / "model.pt"
    torch.save(original.state_dict(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoints.ARCHITECTURES, "ViT-B/32", checkpoints.architecture(original.state_dict()))
        return original, load_clip(str(path), device="cpu", allow_unverified=True)


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 90, (count, 2))
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


def test_weights_are_exactly_those_of_the_file(pair):
    original, clip = pair
    loaded = clip.model.state_dict()
    assert set(loaded) == set(original.state_dict())
    for name, value in original.state_dict().items():
        assert loaded[name].dtype == value.dtype, name
        assert torch.equal(loaded[name], value), name  # not rounded to half on the way
    assert not clip.model.training


def test_texts_equal_openais_encode_text_on_all_77_tokens(pair):
    import clip as openai

    original, clip = pair
    with torch.no_grad():
        expected = original.encode_text(openai.tokenize(TEXTS, truncate=True)).numpy()
    features = clip.encode_texts(TEXTS)
    assert features.shape == (len(TEXTS), clip.dim) and features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-5
    assert np.linalg.norm(expected - expected.mean(axis=0), axis=1).min() > 0.1  # the texts do differ


def test_texts_do_not_depend_on_their_batch_or_order(pair):
    _, clip = pair
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]  # 180: three batches
    features = clip.encode_texts(texts)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(texts))
    np.testing.assert_allclose(clip.encode_texts([texts[row] for row in order]), features[order], atol=1e-5)
    for row in rng.choice(len(texts), 8, replace=False):
        np.testing.assert_allclose(clip.encode_texts([texts[row]])[0], features[row], atol=1e-5)


def test_too_long_a_text_is_cut_at_77_tokens(pair):
    _, clip = pair
    long = "dog " * 75
    np.testing.assert_allclose(clip.encode_texts([long + "cat " * 100]), clip.encode_texts([long]), atol=1e-6)
    assert not np.allclose(clip.encode_texts([long]), clip.encode_texts(["dog " * 74]), atol=1e-4)


def test_pictures_equal_openais_encode_image(pair):
    from clip.clip import _transform

    original, clip = pair
    given = pictures(5)
    with torch.no_grad():
        expected = original.encode_image(torch.stack([_transform(32)(picture) for picture in given])).numpy()
    features = clip.encode_images(given)
    assert features.shape == (5, clip.dim) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(np.linalg.norm(features, axis=1) - 1).min() > 1e-3  # raw, not normalized


def test_pictures_one_at_a_time_equal_the_batch(pair):
    _, clip = pair
    given = pictures(35)  # more than one batch of 32
    together = clip.encode_images(given)
    alone = np.concatenate([clip.encode_images([picture]) for picture in given])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_grey_and_transparent_pictures_are_taken_as_rgb(pair, mode):
    _, clip = pair
    picture = pictures(1)[0].convert(mode)
    features, as_rgb = clip.encode_images([picture]), clip.encode_images([picture.convert("RGB")])
    other = clip.encode_images(pictures(1, seed=1))
    # CLIP resizes before it converts, so that rounding differs by a level here and there
    assert np.linalg.norm(features - as_rgb) < 0.05 * np.linalg.norm(features - other)
    assert picture.mode == mode  # left as it was


@pytest.mark.parametrize("mode", ["P", "1", "I", "F"])
def test_pictures_of_odd_modes_are_taken_too(pair, mode):
    _, clip = pair
    features = clip.encode_images([pictures(1)[0].convert("L").convert(mode)])
    assert features.shape == (1, clip.dim) and np.isfinite(features).all()


def test_nothing_to_encode(pair):
    _, clip = pair
    for features in (clip.encode_images([]), clip.encode_texts([])):
        assert features.shape == (0, clip.dim) and features.dtype == np.float32


@pytest.mark.parametrize("value", [float("nan"), None, 3, b"bytes"])
def test_a_caption_that_is_no_text_is_named(pair, value):
    with pytest.raises(
        TypeError, match="Expected texts to be str, got .* in row 2. Write '' for an empty caption"
    ):
        pair[1].encode_texts(["a", "b", value])


def test_no_gradients_are_kept(pair):
    _, clip = pair
    clip.encode_texts(["a"])
    clip.encode_images(pictures(1))
    assert all(value.grad is None for value in clip.model.parameters())


# ---- loading ----

@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file(
        {name: value.contiguous() for name, value in random_weights("resnet").state_dict().items()}, path
    )
    return path


def load_tiny(path, **options):
    return load_clip("tiny", checkpoint=path, device="cpu", allow_unverified=True, **options)


def test_what_a_loaded_clip_says_of_itself(tiny_file):
    clip = load_tiny(tiny_file)
    assert (clip.name, clip.dim, clip.device, clip.precision) == ("tiny", 64, "cpu", "fp32")
    assert clip.key == f"{file_hash(tiny_file)[:16]}-fp32-cpu"
    assert clip.provenance.startswith("unverified weights of tiny's architecture")


def test_the_key_tells_weights_and_precision_apart(tiny_file, tmp_path):
    from safetensors.torch import save_file

    other = {
        name: value.contiguous() for name, value in random_weights("resnet", seed=1).state_dict().items()
    }
    save_file(other, tmp_path / "other.safetensors")
    keys = {load_tiny(tiny_file, precision=precision).key for precision in ("fp32", "fp16", "bf16")}
    keys.add(load_tiny(tmp_path / "other.safetensors").key)
    assert len(keys) == 4
    assert load_tiny(tiny_file).key == load_tiny(tiny_file, precision="fp32").key  # auto on the CPU


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_come_close_and_give_float32(tiny_file, precision):
    exact, rough = load_tiny(tiny_file), load_tiny(tiny_file, precision=precision)
    for encode, items in (("encode_images", pictures(4)), ("encode_texts", TEXTS)):
        a, b = getattr(exact, encode)(items), getattr(rough, encode)(items)
        assert b.dtype == np.float32 and np.isfinite(b).all()
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() > 0.99
        assert not np.array_equal(a, b)


def test_a_device_may_be_torchs_own_object(tiny_file):
    clip = load_clip("tiny", checkpoint=tiny_file, device=torch.device("cpu"), allow_unverified=True)
    assert clip.precision == "fp32" and clip.key == load_tiny(tiny_file).key


def test_loading_twice_gives_the_same_features(tiny_file):
    np.testing.assert_array_equal(
        load_tiny(tiny_file).encode_texts(TEXTS), load_tiny(tiny_file).encode_texts(TEXTS)
    )


def test_unknown_precision_lists_the_known(tiny_file):
    with pytest.raises(ValueError, match="Unknown precision 'fp8'. Known: auto, fp32, fp16, bf16"):
        load_tiny(tiny_file, precision="fp8")


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="Unknown CLIP 'RN51'. Known: tiny, RN50, "):
        load_clip("RN51")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at .*nowhere.pt"):
        load_clip(str(tmp_path / "nowhere.pt"))


def test_a_path_promises_vit_b32(tiny_file):
    with pytest.raises(
        ValueError,
        match=r"tiny.safetensors isn't a ViT-B/32: .* is \(16, 4, None, 64\), expected "
        r"\(768, 12, 32, 512\)",
    ):
        load_clip(str(tiny_file), allow_unverified=True)


def test_unverified_weights_are_refused_by_default(tmp_path, monkeypatch):
    torch.save(random_weights("vit").state_dict(), tmp_path / "mine.pt")
    monkeypatch.setitem(checkpoints.ARCHITECTURES, "ViT-B/32", (64, 2, 8, 32))
    with pytest.raises(
        ValueError, match="mine.pt isn't OpenAI's file for ViT-B/32.*allow_unverified_clip=True"
    ):
        load_clip(str(tmp_path / "mine.pt"))


def test_openais_hash_is_accepted_and_named(tmp_path, monkeypatch):
    torch.save(random_weights("vit").state_dict(), tmp_path / "official.pt")
    monkeypatch.setitem(checkpoints.ARCHITECTURES, "ViT-B/32", (64, 2, 8, 32))
    monkeypatch.setattr(checkpoints, "official_hash", lambda name: file_hash(tmp_path / "official.pt"))
    assert (
        load_clip("ViT-B/32", checkpoint=tmp_path / "official.pt", device="cpu").provenance
        == "OpenAI ViT-B/32"
    )


def test_half_precision_files_load_as_their_values(tmp_path):
    half = {name: value.half() if value.is_floating_point() else value
            for name, value in random_weights("resnet").state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    loaded = load_tiny(tmp_path / "half.pt").model.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in half.items())
    assert loaded["text_projection"].dtype == torch.float32


def test_a_checkpoint_that_lacks_a_part_names_file_and_part(tmp_path):
    weights = random_weights("resnet").state_dict()
    del weights["ln_final.weight"]
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(ValueError, match="part.pt.*ln_final.weight"):
        load_tiny(tmp_path / "part.pt")


@pytest.mark.slow
def test_a_full_size_vit_b32_of_random_weights(tmp_path):
    """OpenAI's weights can't be had everywhere; this is their architecture at full size, 600 MB on disk."""
    import clip as openai
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).float().eval()
    assert sum(value.numel() for value in original.parameters()) == 151_277_313
    torch.save(original.state_dict(), tmp_path / "vit-b-32.pt")
    with pytest.raises(ValueError, match="isn't OpenAI's file for ViT-B/32"):
        load_clip(str(tmp_path / "vit-b-32.pt"))
    clip = load_clip(str(tmp_path / "vit-b-32.pt"), device="cpu", allow_unverified=True)
    assert (clip.name, clip.dim) == ("ViT-B/32", 512) and clip.provenance.startswith(
        "unverified weights of ViT-B/32's"
    )
    given = pictures(3)
    with torch.no_grad():
        images = original.encode_image(torch.stack([clip.preprocess(picture) for picture in given])).numpy()
        texts = original.encode_text(openai.tokenize(TEXTS, truncate=True)).numpy()
    np.testing.assert_allclose(clip.encode_images(given), images, atol=1e-4)
    assert np.abs(clip.encode_texts(TEXTS) - texts).max() <= 1e-5
