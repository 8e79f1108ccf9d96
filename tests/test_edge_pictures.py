"""Pictures and captions as they come: broken, turned, of odd modes, huge; none, one, one too many."""

import io

import numpy as np
import pytest
from PIL import Image
from test_clip_model import TEXTS, random_weights

from impart_utils import config as kit_config
from impart_utils.sources import datasets
from impart_utils.sources.features import encode_to_cache
from impart_utils.sources.pictures_io import open_picture, to_rgb
from impart_utils.zeroshot import class_features

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


@pytest.fixture(scope="module")
def clip():
    from impart_utils.clip_model import Clip
    from impart_utils.sources.checkpoints import import_clip

    return Clip("tiny", "random", 32, "random-fp32-cpu", random_weights("vit"),
                import_clip().clip._transform(32), "cpu", "fp32")


def noise(seed=0, size=(60, 40)):
    """A picture whose four quarters differ: brightness tells how it is turned."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 64, (size[1], size[0], 3), dtype=np.uint8)
    pixels[:size[1] // 2, :size[0] // 2] += 190
    return Image.fromarray(pixels)


def encoded(clip, items, folder, **options):
    return encode_to_cache(clip.encode_images, items, folder, key="k", prepare=clip.prepare, **options)


# ---- how a file is read ----

def saved(tmp_path, picture, name, **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_orientation_of_exif_is_not_applied_as_in_the_papers_code(tmp_path):
    """The paper's code is PIL's open and then CLIP's preprocessing: neither turns a picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    turned = saved(tmp_path, noise(), "turned.png", exif=exif)
    plain = saved(tmp_path, noise(), "plain.png")
    assert Image.open(turned).getexif()[0x0112] == 6
    assert open_picture(turned).size == (60, 40)
    np.testing.assert_array_equal(open_picture(turned), open_picture(plain))


def test_cmyk(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:4, :, 1] = ink[:4, :, 2] = 255  # magenta and yellow: red
    ink[4:, :, 3] = 255                  # black
    path = saved(tmp_path, Image.fromarray(ink, "CMYK"), "ink.tif")
    assert Image.open(path).mode == "CMYK"
    pixels = np.asarray(open_picture(path))
    assert (pixels[:4] == [255, 0, 0]).all() and (pixels[4:] == 0).all()


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_grey_of_16_bits_keeps_its_shades(tmp_path, name):
    """PIL's own way to RGB cuts at 255 of 65535, so that nearly all is white."""
    values = np.array([[0, 128, 129, 257, 32768, 65534, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(values), name)
    assert np.asarray(Image.open(path).convert("RGB"))[0, 3:, 0].tolist() == [255] * 4
    picture = open_picture(path)
    assert picture.mode == "RGB"
    for channel in range(3):
        assert np.asarray(picture)[0, :, channel].tolist() == [0, 0, 1, 1, 128, 255, 255]


@pytest.mark.parametrize(("mode", "values", "expected"), [
    ("I", [0, 7, 255], [0, 7, 255]),
    ("I", [0, 257, 65535], [0, 1, 255]),
    ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
    ("F", [0.0, 7.4, 255.0], [0, 7, 255]),
    ("F", [0.0, 257.0, 65535.0], [0, 1, 255]),
])
def test_grey_of_32_bits_is_scaled_by_its_range(mode, values, expected):
    picture = Image.fromarray(np.array([values], np.int32 if mode == "I" else np.float32))
    assert picture.mode == mode
    assert np.asarray(to_rgb(picture))[0, :, 1].tolist() == expected


@pytest.mark.parametrize(("dtype", "values"), [
    (np.int32, [0, 70000]), (np.int32, [-1, 3]), (np.float32, [0, np.nan]), (np.float32, [0, 1e9])])
def test_grey_of_32_bits_without_a_known_white(dtype, values):
    with pytest.raises(ValueError, match="Expected grey values from 0 to 65535, got .*8 bits"):
        to_rgb(Image.fromarray(np.array([values], dtype)))


@pytest.mark.filterwarnings("error::UserWarning")  # PIL warns of such a palette
@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_transparency_of_a_palette_is_dropped_and_its_colors_stay(tmp_path, transparency):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(tmp_path, picture, "palette.png", transparency=transparency)
    assert "transparency" in Image.open(path).info
    assert np.asarray(open_picture(path))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert Image.open(path).n_frames == 3
    assert (np.asarray(open_picture(path)) == [255, 0, 0]).all()


@pytest.mark.parametrize("pixels", [1500, 3000])  # PIL warns above its limit, and refuses above twice that
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, pixels):
    path = saved(tmp_path, Image.new("RGB", (50, pixels // 50)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError, match=f"{pixels} pixels.*exceeds limit"):
        open_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    assert open_picture(path).size == (50, pixels // 50)


def test_a_line_of_pixels_is_refused_before_it_is_blown_up(clip):
    """1 x 20000 pixels, resized so that the shorter side has 224, are three billion bytes."""
    with pytest.raises(ValueError, match="at most 100 times as long as wide, got 1 x 20000 pixels"):
        clip.encode_images([Image.new("RGB", (1, 20_000))])
    assert clip.encode_images([Image.new("RGB", (2, 200))]).shape == (1, 32)


# ---- the whole path: folder -> ids -> features ----

def test_odd_pictures_in_a_folder(tmp_path, monkeypatch, clip):
    """Whatever can't be read is skipped with its reason, and every row is still its own picture's."""
    place = tmp_path / "set" / "things"
    place.mkdir(parents=True)
    for number in range(5):
        noise(number).save(place / f"{number}-good.jpg")
    whole = (place / "0-good.jpg").read_bytes()
    (place / "1-cut.jpg").write_bytes(whole[:len(whole) // 2])
    (place / "2-page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (place / "2-nothing.jpg").write_bytes(b"")
    Image.new("RGB", (200, 200)).save(place / "3-bomb.png")
    Image.new("RGB", (1, 500)).save(place / "3-line.png")
    noise(7).convert("CMYK").save(place / "4-ink.jpg")
    noise(8).convert("L").save(place / "4-grey.gif")
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27).save(place / "4-deep.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    settings = kit_config.load_config(datasets=f"folder:{tmp_path / 'set'}")
    dataset = datasets.load_dataset(f"folder:{tmp_path / 'set'}", settings)
    for workers in (0, 2):
        features, ids, skipped = encoded(clip, dataset.items(), tmp_path / f"cache{workers}", batch_size=3,
                                         workers=workers)
        reasons = {name.removeprefix("things/"): reason.split(":")[0] for name, reason in skipped.items()}
        assert reasons == {
            "1-cut.jpg": "OSError", "2-page.jpg": "UnidentifiedImageError",
            "2-nothing.jpg": "UnidentifiedImageError", "3-bomb.png": "DecompressionBombError",
            "3-line.png": "ValueError"}
        assert ids == [name for name in dataset.ids if name not in skipped] and len(ids) == 8
        for row, name in enumerate(ids):
            alone = clip.encode_images([open_picture(tmp_path / "set" / name)])[0]
            np.testing.assert_allclose(features[row], alone, atol=1e-5)
    assert np.abs(features[:, None] - features[None]).max(axis=2)[~np.eye(8, dtype=bool)].min() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_one_picture_and_a_last_batch_that_is_not_full(tmp_path, clip, count):
    items = [(str(number), noise(number)) for number in range(count)]
    features, ids, skipped = encoded(clip, items, tmp_path, batch_size=4)
    assert features.shape == (count, 32) and ids == [name for name, _ in items] and skipped == {}
    for row, (_, picture) in enumerate(items):
        np.testing.assert_allclose(features[row], clip.encode_images([picture])[0], atol=1e-5)


def test_no_picture_and_no_text(tmp_path, clip):
    for features in (clip.encode_images([]), clip.encode_texts([])):
        assert features.shape == (0, 32) and features.dtype == np.float32
    with pytest.raises(ValueError, match="Expected at least one item to encode for .*, got none"):
        encoded(clip, [], tmp_path)


def test_all_pictures_are_broken(tmp_path, clip):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    files = datasets.Files([tmp_path / "a.jpg"])
    with pytest.raises(ValueError, match="None of 1 items could be opened; .*UnidentifiedImageError"):
        encoded(clip, [("a", lambda: files[0])], tmp_path / "cache")


# ---- captions ----

def test_captions_of_every_length_and_script_stream_as_they_are(tmp_path, clip):
    captions = [*TEXTS, "👩‍👩‍👧 🏳️‍🌈", " ", "\n\t", "<b>&amp;</b>", "日本語" * 100, "a" * 5000]
    items = list(zip(map(str, range(len(captions))), captions, strict=True))
    features, _, skipped = encode_to_cache(clip.encode_texts, items, tmp_path, key="k", batch_size=4)
    assert skipped == {}
    for row, caption in enumerate(captions):
        np.testing.assert_allclose(features[row], clip.encode_texts([caption])[0], atol=1e-5)


def test_a_caption_of_300_words_is_its_first_75_tokens(clip):
    words = [f"{color} boat" for color in ("red", "blue", "old")] * 50  # 300 words, a token each
    whole, start, other = clip.encode_texts([" ".join(words), " ".join(" ".join(words).split()[:75]),
                                             " ".join(" ".join(words).split()[:74])])
    np.testing.assert_allclose(whole, start, atol=1e-6)
    assert np.abs(whole - other).max() > 1e-3


def test_an_empty_caption_is_a_text_of_its_own(clip):
    features = clip.encode_texts(["", " ", "a"])
    np.testing.assert_allclose(features[0], features[1], atol=1e-6)  # the tokenizer strips
    assert np.isfinite(features).all() and np.abs(features[0] - features[2]).max() > 1e-3


def test_class_names_with_slashes_braces_and_emojis(clip):
    """A name is text and nothing else: no path, no format string."""
    names = ["on/off switch", "../../etc", "{0}", "{}", "100%", "cat 🐈", "a\\b", "CON"]
    features = class_features(clip.encode_texts, names)
    expected = clip.encode_texts([f"a photo of a {name}" for name in names])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert len({row.tobytes() for row in features}) == len(names)


def test_ids_with_slashes_are_no_paths(tmp_path, clip):
    items = [("a/b.jpg", noise(0)), ("../c.jpg", noise(1)), ("/etc/d.jpg", noise(2))]
    _, ids, _ = encoded(clip, items, tmp_path / "cache")
    assert ids == [name for name, _ in items]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


def test_a_picture_from_memory_needs_no_file(clip):
    body = io.BytesIO()
    noise().save(body, "PNG")
    body.seek(0)
    np.testing.assert_array_equal(open_picture(body), noise())
