"""Loading and running CLIP: equal to OpenAI's own forward pass, whatever the batch."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impart_utils import clip_model
from impart_utils.clip_model import load_clip
from impart_utils.sources import checkpoint_formats, checkpoints, clip_checks, download
from impart_utils.sources.clip_architectures import architecture
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
        patch.setitem(checkpoints.ARCHITECTURES, "ViT-B/32", architecture(original.state_dict()))
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


def test_pictures_prepared_beforehand_give_the_same(pair):
    import pickle

    _, clip = pair
    given = pictures(35)
    prepare = pickle.loads(packed := pickle.dumps(clip.prepare))  # on its way to another process
    assert len(packed) < 10_000  # without the model
    prepared = [prepare(picture) for picture in given]
    assert all(array.shape == (32, 32, 3) and array.dtype == np.uint8 for array in prepared)
    expected = clip.encode_images(given)
    np.testing.assert_array_equal(clip.encode_images(prepared), expected)
    np.testing.assert_array_equal(clip.encode_images(prepared[:9] + given[9:]), expected)


def test_pixels_of_a_batch_are_bit_for_bit_those_of_clips_preprocessing(pair):
    _, clip = pair
    given = pictures(9)
    expected = torch.stack([clip.preprocess(picture) for picture in given])
    assert torch.equal(clip._pixels([clip.prepare(picture) for picture in given]), expected)


def test_many_texts_are_tokenized_and_sorted_window_by_window(pair, monkeypatch):
    _, clip = pair
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]  # 36
    expected, sizes = clip.encode_texts(texts), []
    tokenize = checkpoints.import_clip().tokenize
    monkeypatch.setattr(checkpoints.import_clip(), "tokenize",
                        lambda texts, **options: sizes.append(len(texts)) or tokenize(texts, **options))
    monkeypatch.setattr(clip_model, "WINDOW", 10)
    np.testing.assert_allclose(clip.encode_texts(texts), expected, atol=1e-5)
    assert sizes == [10, 10, 10, 6]


def test_the_way_to_a_gpu(pair, monkeypatch):
    """Where there is none: large batches, from pinned memory, no waiting for a copy, one for the result."""
    _, clip = pair
    given = [clip.prepare(picture) for picture in pictures(5)]
    expected = clip.encode_images(given), clip.encode_texts(TEXTS)
    pinned, copied, waited, to, cpu = [], [], [], torch.Tensor.to, torch.Tensor.cpu

    def copy(tensor, *arguments, **options):
        if arguments[:1] != ("cuda",):
            return to(tensor, *arguments, **options)
        copied.append((len(tensor), tensor.dtype, options))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(len(tensor)) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", copy)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: waited.append(1) or cpu(tensor))
    monkeypatch.setattr(clip_model, "BATCHES", {"gpu": (2, 4)})
    found = replace(clip, device="cuda")
    np.testing.assert_allclose(found.encode_images(given), expected[0], atol=1e-5)
    assert pinned == [2, 2, 1] and waited == [1]
    assert copied == [(size, torch.uint8, {"non_blocking": True}) for size in (2, 2, 1)]
    np.testing.assert_allclose(found.encode_texts(TEXTS), expected[1], atol=1e-5)
    assert pinned[3:] == [4, 4, 1] and waited == [1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_gpu_agrees_with_the_cpu(tiny_file, precision):
    rough = load_clip("tiny", checkpoint=tiny_file, device="cuda", precision=precision, allow_unverified=True)
    exact = load_tiny(tiny_file)
    for encode, items in (("encode_images", pictures(5)), ("encode_texts", TEXTS)):
        a, b = getattr(exact, encode)(items), getattr(rough, encode)(items)
        assert b.dtype == np.float32
        assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.999


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
    assert re.fullmatch(f"{file_hash(tiny_file)[:16]}-[0-9a-f]+-fp32-cpu", clip.key)
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
        match="tiny.safetensors isn't a ViT-B/32: width is 16, expected 768, .*"
        "Its shapes are those of tiny: ask for it by that name",
    ):
        load_clip(str(tiny_file), allow_unverified=True)


def cosines_of(model):
    """The table of `clip_checks` for another model than ViT-B/32."""
    import clip as openai

    with torch.no_grad():
        features = model.encode_text(openai.tokenize(list(clip_checks.PROMPTS))).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return [row[number + 1:] for number, row in enumerate(features @ features.T)][:-1]


@pytest.fixture
def small_b32(monkeypatch):
    """A small vision transformer that goes by the name ViT-B/32, with its own shapes and cosines."""
    model = random_weights("vit")
    monkeypatch.setitem(checkpoints.ARCHITECTURES, "ViT-B/32", architecture(model.state_dict()))
    monkeypatch.setattr(clip_checks, "TEXT_COSINES", cosines_of(model))
    return model


def test_unverified_weights_are_refused_by_default(tmp_path, small_b32):
    torch.save(small_b32.state_dict(), tmp_path / "mine.pt")
    with pytest.raises(
        ValueError, match="mine.pt isn't OpenAI's file for ViT-B/32.*allow_unverified_clip=True"
    ):
        load_clip(str(tmp_path / "mine.pt"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_unverified_weights_say_whether_their_texts_agree_with_openais(tmp_path, small_b32, precision):
    torch.save(small_b32.state_dict(), tmp_path / "same.pt")
    torch.save(random_weights("vit", seed=1).state_dict(), tmp_path / "other.pt")
    found = cosines_of(random_weights("vit", seed=1))
    largest = np.abs(np.concatenate(found) - np.concatenate(clip_checks.TEXT_COSINES)).max()
    for name, said in (("same.pt", "the 45 cosines of ten texts agree with OpenAI's"),
                       ("other.pt", f"its texts differ from OpenAI's by up to {largest:.2f} in cosine")):
        clip = load_clip(str(tmp_path / name), device="cpu", precision=precision, allow_unverified=True)
        sha256 = file_hash(tmp_path / name)[:12]
        assert clip.provenance == f"unverified weights of ViT-B/32's architecture, SHA-256 {sha256}; {said}"


@pytest.fixture
def official(tmp_path, small_b32, monkeypatch):
    """The file that OpenAI publishes in this test."""
    path = tmp_path / "official.pt"
    torch.save({name: value.half() for name, value in small_b32.state_dict().items()}, path)
    sha256 = file_hash(path)
    monkeypatch.setattr(checkpoints, "official_hash", lambda name: sha256)
    return path


def load_official(path, **options):
    return load_clip("ViT-B/32", checkpoint=path, device="cpu", **options)


def test_openais_hash_is_accepted_and_named(official):
    assert load_official(official).provenance == "OpenAI ViT-B/32"


def test_openais_file_that_gives_other_features_is_a_broken_installation(official, monkeypatch):
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: x)  # as a broken torch might
    with pytest.raises(ValueError, match="are those of OpenAI ViT-B/32, but their features are not: FAILED"):
        load_official(official)


def test_the_copy_gives_the_same_key_and_the_same_features(official, monkeypatch):
    first = load_official(official)
    assert checkpoint_formats.copy_path(official).is_file()
    monkeypatch.delattr(torch, "load")  # the second time OpenAI's file is not read
    second = load_official(official)
    assert second.key == first.key and first.key.startswith(file_hash(official)[:16])
    assert second.provenance == first.provenance
    np.testing.assert_array_equal(second.encode_texts(TEXTS), first.encode_texts(TEXTS))
    np.testing.assert_array_equal(second.encode_images(pictures(3)), first.encode_images(pictures(3)))


def test_weights_that_are_not_here_are_downloaded(small_b32, tmp_path, monkeypatch):
    """A server on localhost stands in for OpenAI's; it breaks off once and is asked for the rest."""
    import hashlib

    from test_download import Server, archive, asked_ranges

    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path / "home"))
    torch.save(small_b32.state_dict(), tmp_path / "published.pt")
    content = (tmp_path / "published.pt").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    address = f"/clip/{sha256}/ViT-B-32.pt"
    with Server({address: archive(content, cuts=[100_000])}) as server:
        monkeypatch.setitem(checkpoints.import_clip().clip._MODELS, "ViT-B/32", server.url + address)
        clip = load_clip("ViT-B/32", device="cpu")
        assert asked_ranges(server) == [None, "bytes=100000-"]
    assert clip.provenance == "OpenAI ViT-B/32" and clip.key.startswith(sha256[:16])
    assert load_clip("ViT-B/32", device="cpu").key == clip.key  # the server is gone


def test_no_texts_are_checked_where_none_are_known(tiny_file, monkeypatch):
    monkeypatch.delattr(clip_checks, "with_verdict")
    assert load_tiny(tiny_file).provenance.startswith("unverified weights of tiny's architecture, SHA-256 ")


def test_a_mirror_for_transformers_gives_the_originals_features(small_b32, tmp_path):
    """openai/clip-vit-base-patch32's names: see tests/test_checkpoint_formats.py."""
    from test_checkpoint_formats import to_transformers

    torch.save(small_b32.state_dict(), tmp_path / "original.pt")
    torch.save(to_transformers(small_b32.state_dict()), tmp_path / "pytorch_model.bin")
    original, mirror = (load_clip(str(tmp_path / name), device="cpu", allow_unverified=True)
                        for name in ("original.pt", "pytorch_model.bin"))
    for encode, items in (("encode_texts", TEXTS), ("encode_images", pictures(3))):
        ours, theirs = getattr(mirror, encode)(items), getattr(original, encode)(items)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert mirror.provenance.endswith("the 45 cosines of ten texts agree with OpenAI's")
    assert mirror.key != original.key  # another file


def test_plain_gelu_is_refused_even_where_unverified_weights_are_allowed(small_b32, tmp_path):
    torch.save(small_b32.state_dict(), tmp_path / "laion.bin")
    (tmp_path / "config.json").write_text('{"model_type": "clip", "text_config": {"hidden_act": "gelu"}}')
    with pytest.raises(ValueError, match='laion.bin holds weights for another.*config.json beside it says '
                                         '"hidden_act": "gelu"'):
        load_clip(str(tmp_path / "laion.bin"), allow_unverified=True)


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
    weights = random_weights("resnet").state_dict()
    del weights["visual.layer2.0.bn1.running_mean"]
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(ValueError, match="part.pt can't be made into a CLIP: [^$]*layer2.0.bn1.running_mean"):
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
    # random weights are not OpenAI's, and the second checks see it
    assert re.search(r"; its texts differ from OpenAI's by up to 0\.[1-9]\d in cosine$", clip.provenance)
    assert not clip_checks.check_texts(clip.encode_texts).passed
    check = clip_checks.check_cifar_pictures(clip.encode_images(pictures(10)))
    assert not check.passed and check.largest > 0.1


@pytest.mark.slow
def test_full_size_features_do_not_depend_on_the_batch_and_hardly_on_precision():
    from clip.model import CLIP

    from impart_utils.clip_towers import lower_precision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).float().eval()
    transform = checkpoints.import_clip().clip._transform(224)
    clip = clip_model.Clip("ViT-B/32", "random", 512, "", model, transform, "cpu", "fp32")
    given = {clip.encode_images: pictures(6), clip.encode_texts: TEXTS}
    exact = []
    for encode, items in given.items():
        exact.append(encode(items))
        alone = np.concatenate([encode([item]) for item in items])
        assert np.abs(exact[-1] - alone).max() <= 1e-5
    lower_precision(model, torch.bfloat16)
    for (encode, items), a in zip(given.items(), exact, strict=True):
        b = encode(items)
        assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clips_own_full_size_vit_b32_quickgelu(tmp_path, kind):
    """Random weights from open_clip itself, as its mirrors store them, through the kit's own path."""
    import clip as openai
    from safetensors.torch import save_file

    open_clip = pytest.importorskip("open_clip", reason="the package open_clip isn't here")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = open_clip.create_model("ViT-B-32-quickgelu").eval()
    (save_file if kind.endswith("safetensors") else torch.save)(theirs.state_dict(), tmp_path / kind)
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32-quickgelu"), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    ours = load_clip(str(tmp_path / kind), device="cpu", allow_unverified=True)
    given = pictures(3)
    with torch.no_grad():
        images = theirs.encode_image(torch.stack([ours.preprocess(picture) for picture in given])).numpy()
        texts = theirs.encode_text(openai.tokenize(TEXTS, truncate=True)).numpy()
    np.testing.assert_allclose(ours.encode_images(given), images, atol=1e-4)
    np.testing.assert_allclose(ours.encode_texts(TEXTS), texts, atol=1e-4)
    config["model_cfg"].pop("quick_gelu")  # as plain ViT-B-32 has it
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match='open_clip_config.json beside it has no "quick_gelu": true'):
        load_clip(str(tmp_path / kind), device="cpu", allow_unverified=True)
