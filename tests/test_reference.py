"""The reference set: round trips, splits, the three scales, and Vanilla from end to end."""

import numpy as np
import pytest

from impart_utils.reference import (
    ReferenceSet,
    encode_pairs,
    from_pack,
    keeps_norms,
    scaled,
    split,
    vanilla_features,
)
from impart_utils.retrieval import Retriever
from impart_utils.sources.features import Pack, load_pack, save_pack
from impart_utils.vanilla import augment


def make(m=20, d=6, seed=0, **changes):
    rng = np.random.default_rng(seed)
    parts = dict(
        image_features=rng.normal(0, 3, (m, d)).astype(np.float32),
        text_features=rng.normal(0, 3, (m, d)).astype(np.float32),
        captions=[f"caption {row}, «ünï» \n" for row in range(m)], ids=[f"id-{row}" for row in range(m)],
        metadata={"model": "fake CLIP", "source": "the test",
                  "columns": {"licence": [f"BY {row}" for row in range(m)], "likes": list(range(m))}})
    return ReferenceSet(**{**parts, **changes})


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_save_and_load_give_back_every_part(tmp_path):
    references = make()
    references.save(tmp_path / "folder" / "references.safetensors")
    again = ReferenceSet.load(tmp_path / "folder" / "references.safetensors")
    assert again.image_features.tobytes() == references.image_features.tobytes()
    assert again.text_features.tobytes() == references.text_features.tobytes()
    assert again.image_features.dtype == np.float32
    assert (again.captions, again.ids, again.metadata) == (
        references.captions,
        references.ids,
        references.metadata,
    )
    assert again.key == references.key
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["references.safetensors"]


def test_two_saves_of_one_set_are_the_same_bytes(tmp_path):
    make().save(tmp_path / "a.safetensors")
    make().save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_take_cuts_every_part_in_the_order_given():
    references = make()
    taken = references.take([7, 0, 3])
    assert len(taken) == 3
    assert taken.ids == ["id-7", "id-0", "id-3"]
    assert taken.captions == [references.captions[row] for row in (7, 0, 3)]
    np.testing.assert_array_equal(taken.image_features, references.image_features[[7, 0, 3]])
    np.testing.assert_array_equal(taken.text_features, references.text_features[[7, 0, 3]])
    assert taken.metadata["columns"] == {"licence": ["BY 7", "BY 0", "BY 3"], "likes": [7, 0, 3]}
    assert taken.metadata["source"] == "the test"
    assert len(references) == 20 and references.metadata["columns"]["likes"] == list(range(20))


def test_take_nothing_and_by_a_mask():
    references = make()
    assert len(references.take(np.arange(0))) == 0
    assert len(references.take([])) == 0
    mask = np.zeros(20, bool)
    mask[[2, 5]] = True
    assert references.take(mask).ids == ["id-2", "id-5"]


@pytest.mark.parametrize("rows", [[20], [-1, 3]])
def test_take_rows_that_do_not_exist(rows):
    with pytest.raises(ValueError, match=rf"Expected rows from 0 to 19, got {min(rows)} to {max(rows)}"):
        make().take(rows)


def test_shuffled_captions_go_to_another_picture_with_their_features():
    references = make(m=31)
    shuffled = references.shuffle_captions(4)
    assert sorted(shuffled.captions) == sorted(references.captions)
    np.testing.assert_array_equal(shuffled.image_features, references.image_features)
    assert shuffled.ids == references.ids
    assert shuffled.columns["licence"] == references.columns["licence"]  # the picture's
    for row, source in enumerate(shuffled.metadata["columns"]["caption_of"]):
        assert source != references.ids[row]
        place = references.ids.index(source)
        assert shuffled.captions[row] == references.captions[place]
        np.testing.assert_array_equal(shuffled.text_features[row], references.text_features[place])
    assert references.shuffle_captions(4).key == shuffled.key != references.shuffle_captions(5).key
    assert "caption_of" not in references.metadata["columns"]


def test_shuffling_is_that_of_the_controls():
    from impart_utils.evidence.controls import shuffled_captions

    references = make(m=31)
    np.testing.assert_array_equal(references.shuffle_captions(9).text_features,
                                  shuffled_captions(references.text_features, seed=9))


def test_two_pairs_swap_captions_and_one_cannot():
    assert make(m=2).shuffle_captions(0).captions == make(m=2).captions[::-1]
    with pytest.raises(ValueError, match="at least two pairs to shuffle captions, got 1"):
        make(m=1).shuffle_captions(0)


def test_filter_keeps_the_pairs_whose_caption_fits():
    images = np.array([[1, 0], [0, 2], [3, 0], [1, 1]], np.float32)
    texts = np.array([[2, 0], [5, 0], [3, 4], [1, 1]], np.float32)  # cosines 1, 0, 0.6, 1
    pairs = make(m=4, image_features=images, text_features=texts)
    np.testing.assert_allclose(pairs.caption_similarities, [1, 0, 0.6, 1], atol=1e-6)
    assert pairs.filter(min_similarity=0.59).ids == ["id-0", "id-2", "id-3"]
    assert pairs.filter(min_similarity=0.7).metadata["columns"]["likes"] == [0, 3]
    assert pairs.filter(min_similarity=-1).key == pairs.key
    with pytest.raises(ValueError, match=r"min_similarity=0\.9, but the best of 1 has 0\.600. Lower"):
        pairs.take([2]).filter(min_similarity=0.9)


class FakeClip:
    """Encodes a picture by its mean color and a text by its length."""

    key, provenance, asked = "fake-key", "fake CLIP", 0
    prepare = None

    def encode_images(self, pictures):
        self.asked += len(pictures)
        return np.array([np.asarray(picture, float).mean(axis=(0, 1)) + 1 for picture in pictures])

    def encode_texts(self, texts):
        self.asked += len(texts)
        return np.array([[len(text) + 1, 1, 0] for text in texts], float)


def folder_of_pictures(tmp_path, lines):
    from PIL import Image

    for number, color in enumerate([(9, 0, 0), (0, 9, 0), (0, 0, 9)]):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{number}.png")
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_folder_becomes_a_reference_set_once(tmp_path):
    folder = folder_of_pictures(tmp_path, ["file,caption,license", "0.png,None,by", "gone.png,lost,by-nd",
                                           "2.png,,by-sa"])
    clip = FakeClip()
    references = ReferenceSet.from_folder(folder, clip, cache_dir=tmp_path / "cache")
    assert references.ids == ["0.png", "2.png"] and references.captions == ["None", ""]
    np.testing.assert_array_equal(references.image_features, [[10, 1, 1], [1, 1, 10]])
    np.testing.assert_array_equal(references.text_features, [[5, 1, 0], [1, 1, 0]])
    assert references.columns == {"license": ["by", "by-sa"]}  # rows stay together where a picture is lost
    assert references.weights == "fake CLIP" and references.metadata["source"] == f"the folder {folder.name}"
    assert set(references.metadata["skipped"]) == {"gone.png"}
    asked = clip.asked
    assert ReferenceSet.from_folder(folder, clip, cache_dir=tmp_path / "cache").key == references.key
    assert clip.asked == asked
    references.save(tmp_path / "set.safetensors")
    again = ReferenceSet.load(tmp_path / "set.safetensors")
    assert again.key == references.key and again.columns == references.columns
    assert load_pack(tmp_path / "set.safetensors").license == ["by", "by-sa"]


@pytest.mark.parametrize(("lines", "message"), [
    (["file,text", "0.png,a"], r"captions.csv: expected the columns file and caption, caption is missing"),
    (["file,caption", "0.png,a", "1.png,b", "0.png,c"], r"captions.csv, row 3: '0.png' is named a second"),
])
def test_a_folder_s_table_that_is_not_right(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        ReferenceSet.from_folder(folder_of_pictures(tmp_path, lines), FakeClip(), cache_dir=tmp_path)


def test_a_folder_without_a_table(tmp_path):
    from impart_utils.config import MissingInput

    with pytest.raises(MissingInput, match=r"no reference set in .*captions.csv is missing"):
        ReferenceSet.from_folder(tmp_path, FakeClip(), cache_dir=tmp_path)


def test_encoding_cuts_all_that_belongs_to_a_lost_picture(tmp_path):
    def broken():
        raise OSError("no picture")

    pictures = [np.full((4, 4, 3), number, np.uint8) for number in range(4)]
    items = [("a", pictures[0]), ("b", broken), ("c", pictures[2]), ("d", pictures[3])]
    pairs = encode_pairs(FakeClip(), items, ["one", "two", "three", "four"],
                         {"source": "here", "columns": {"n": [0, 1, 2, 3]}}, stamp=1, cache=tmp_path / "x")
    assert (pairs.ids, pairs.captions, pairs.columns) == (["a", "c", "d"], ["one", "three", "four"],
                                                          {"n": [0, 2, 3]})
    np.testing.assert_array_equal(pairs.image_features[:, 0], [1, 3, 4])
    assert pairs.metadata["skipped"] == {"b": "OSError: no picture"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-images", "x-texts"]


def test_split_is_complete_and_disjoint():
    pairs = make(m=20)
    references, rest = split(pairs, 6, seed=0)
    assert (len(references), len(rest)) == (6, 14)
    assert sorted(references.ids + rest.ids) == sorted(pairs.ids)
    assert not set(references.ids) & set(rest.ids)
    row = int(references.ids[0].removeprefix("id-"))  # features go along with their ids
    np.testing.assert_array_equal(references.image_features[0], pairs.image_features[row])
    assert references.captions[0] == pairs.captions[row]


def test_split_depends_on_seed_and_draw_alone():
    pairs = make(m=40)

    def chosen(**options):
        return split(pairs, 10, **options)[0].ids

    assert chosen(seed=0) == chosen(seed=0, draw=0)
    draws = [chosen(seed=seed, draw=draw) for seed in range(3) for draw in range(3)]
    assert len({tuple(ids) for ids in draws}) == 9
    np.random.seed(99)
    state = np.random.get_state()[1].copy()
    assert chosen(seed=0) == draws[0]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # no global generator is touched
    assert chosen(seed=0) != pairs.ids[:10]  # shuffled: YFCC's first rows are one year's uploads


def test_split_of_all_and_of_too_many():
    references, rest = split(make(m=5), 5, seed=0)
    assert (len(references), len(rest)) == (5, 0)
    with pytest.raises(
        ValueError, match="Expected references <= number of pairs, got references=6 with 5 pairs"
    ):
        split(make(m=5), 6, seed=0)


def test_key_changes_with_any_part():
    plain = make()
    keys = {plain.key, plain.take(np.arange(19)).key, plain.take(np.arange(20)[::-1]).key,
            make(captions=["another", *plain.captions[1:]]).key, make(ids=["another", *plain.ids[1:]]).key}
    for name in ("image_features", "text_features"):
        changed = getattr(plain, name).copy()
        changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(9))  # the last bit of one number
        keys.add(make(**{name: changed}).key)
    keys.add(make(image_features=plain.text_features, text_features=plain.image_features).key)
    assert len(keys) == 8
    assert make().key == plain.key and len(plain.key) == 16


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"captions": ["one"]}, "expected 20 rows in captions, got 1"),
        ({"ids": ["one"]}, "expected 20 rows in ids, got 1"),
        ({"text_features": np.ones((19, 6), np.float32)}, "expected 20 rows in text_features, got 19"),
        (
            {"text_features": np.ones((20, 5), np.float32)},
            r"expected text_features with 6 columns, got shape \(20, 5\)",
        ),
        (
            {"metadata": {"columns": {"licence": ["BY"]}}},
            "Expected 20 values in the reference set's column 'licence', got 1",
        ),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("name", ["image_features", "text_features"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_features_without_a_direction_are_named(name, value):
    bad = np.ones((20, 6), np.float32)
    bad[11] = value
    with pytest.raises(ValueError, match=f"row 11 of {name} is zero or not finite"):
        make(**{name: bad})


def test_features_that_are_not_a_table_have_their_message():
    with pytest.raises(ValueError, match="image_features.*shape"):
        ReferenceSet(np.ones(3), np.ones(3), ["a"], ["b"])


def test_a_pack_without_texts_is_no_reference_set(tmp_path):
    save_pack(tmp_path / "pictures.safetensors", Pack(np.ones((3, 2), np.float32), ["a", "b", "c"], "fake"))
    with pytest.raises(
        ValueError, match=r"pictures.safetensors has no text features for its 3 pictures.*second file"
    ):
        ReferenceSet.load(tmp_path / "pictures.safetensors")


def test_a_pack_without_captions_gets_empty_ones():
    x = np.ones((3, 2), np.float32)
    references = from_pack(Pack(x, ["a", "b", "c"], "fake", text_features=x, metadata={"source": "there"}))
    assert references.captions == ["", "", ""]
    assert references.metadata == {"model": "fake", "source": "there"}


def test_an_id_for_two_pairs_is_refused_on_loading(tmp_path):
    make(m=3, metadata={}, ids=["a", "b", "a"]).save(tmp_path / "set.safetensors")
    with pytest.raises(ValueError, match=r"set.safetensors: expected ids .* one pair each, got 'a' 2 times"):
        ReferenceSet.load(tmp_path / "set.safetensors")


def test_licenses_and_source_of_a_pack_are_kept():
    x = np.ones((2, 2), np.float32)
    pack = Pack(x, ["a", "b"], "fake", text_features=x, license=["by", "by-sa"], source="there")
    references = ReferenceSet.from_pack(pack)
    assert references.columns == {"license": ["by", "by-sa"]} and references.metadata["source"] == "there"
    assert ReferenceSet.from_pack(Pack(x, ["a", "b"], "fake", text_features=x, license="MIT")).columns == {}


@pytest.mark.parametrize("rows", [11, 13])
def test_a_file_whose_rows_do_not_fit_is_refused(tmp_path, rows):
    """Ids and rows are counted when a file is read: a pack of 12 rows of features with more or fewer ids."""
    import json

    from safetensors import safe_open
    from safetensors.numpy import save_file

    make(m=12, metadata={}).save(tmp_path / "set.safetensors")
    with safe_open(tmp_path / "set.safetensors", "np") as file:
        arrays, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    lists = json.loads(header["impart_pack"]) | {"ids": [str(row) for row in range(rows)], "format": 1}
    save_file(arrays, tmp_path / "other.safetensors", metadata={"impart_pack": json.dumps(lists)})
    with pytest.raises(ValueError, match=f"other.safetensors: expected 12 rows in ids, got {rows}"):
        ReferenceSet.load(tmp_path / "other.safetensors")


def test_a_saved_set_can_be_read_as_a_pack(tmp_path):
    make().save(tmp_path / "references.safetensors")
    pack = load_pack(tmp_path / "references.safetensors")
    assert pack.model == "fake CLIP" and pack.captions == make().captions and pack.labels is None


def test_the_three_scales():
    references, queries = make(), np.random.default_rng(5).normal(0, 2, (4, 6)).astype(np.float32)
    image, text = references.image_features, references.text_features
    expected = {"unit": (unit(queries), unit(image), unit(text)), "raw": (queries, image, text),
                "mixed": (unit(queries), unit(image), text)}
    for scale, blocks in expected.items():
        for block, wanted in zip(scaled(queries, references, scale), blocks, strict=True):
            np.testing.assert_allclose(block, wanted, atol=1e-6)
    np.testing.assert_array_equal(scaled(queries, references)[0], scaled(queries, references, "unit")[0])
    np.testing.assert_array_equal(image, make().image_features)  # nothing in place


def test_raw_and_mixed_need_norms():
    queries = np.random.default_rng(5).normal(0, 2, (4, 6)).astype(np.float32)
    unit_texts = make(text_features=unit(make().text_features))
    unit_images = make(image_features=unit(make().image_features))
    scaled(queries, unit_texts, "unit")
    scaled(unit(queries), unit_images, "mixed")  # only the texts' norms count there
    for scale in ("raw", "mixed"):
        with pytest.raises(
            ValueError, match=f"scale='{scale}' needs raw vectors, but the text features have unit length"
        ):
            scaled(queries, unit_texts, scale)
    with pytest.raises(
        ValueError, match="scale='raw' needs raw vectors, but the image features have unit length"
    ):
        scaled(queries, unit_images, "raw")
    with pytest.raises(ValueError, match="but the query features have unit length"):
        scaled(unit(queries), make(), "raw")
    with pytest.raises(
        ValueError, match="image and text and query features have unit length.*use scale='unit'"
    ):
        scaled(
            unit(queries),
            make(image_features=unit_images.image_features, text_features=unit_texts.text_features),
            "raw",
        )


def test_unknown_scale_lists_the_known():
    with pytest.raises(ValueError, match="Unknown scale 'log'. Known: unit, raw, mixed"):
        scaled(np.ones((1, 6)), make(), "log")


def test_keeps_norms():
    raw = make().image_features
    assert keeps_norms(raw) and not keeps_norms(unit(raw))
    assert not keeps_norms(unit(raw).astype(np.float16).astype(np.float32))  # rounding is no norm
    assert keeps_norms(10 * unit(raw))  # all of one length, which isn't 1


@pytest.mark.parametrize("scale", ["unit", "raw", "mixed"])
def test_vanilla_features_equal_the_steps_one_by_one(scale):
    references, queries = make(m=30), np.random.default_rng(5).normal(0, 2, (7, 6)).astype(np.float32)
    _, indices = Retriever(references.image_features).search(queries, 4)
    v, R_img, R_txt = scaled(queries, references, scale)
    expected = augment(v, R_img[indices], R_txt[indices], image_weight=0.7, text_weight=0.2)
    result = vanilla_features(queries, references, top_k=4, image_weight=0.7, text_weight=0.2, scale=scale)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert result.dtype == np.float32


@pytest.mark.parametrize("scale", ["unit", "raw", "mixed"])
def test_vanilla_features_are_the_same_by_every_backend(scale):
    references, queries = make(m=300), np.random.default_rng(5).normal(0, 2, (70, 6)).astype(np.float32)
    plain = vanilla_features(queries, references, scale=scale, backend="sklearn")
    by_torch = vanilla_features(queries, references, scale=scale, backend="torch")
    np.testing.assert_allclose(by_torch, plain, atol=5e-6)
    np.testing.assert_array_equal(vanilla_features(queries, references, scale=scale), plain)  # "auto"


def test_vanilla_features_with_given_neighbors():
    references, queries = make(m=30), np.random.default_rng(5).normal(0, 2, (7, 6)).astype(np.float32)
    indices = np.random.default_rng(6).integers(0, 30, (7, 3))
    v, R_img, R_txt = scaled(queries, references)
    result = vanilla_features(queries, references, neighbor_indices=indices)
    np.testing.assert_allclose(result, augment(v, R_img[indices], R_txt[indices]), atol=1e-6)
    assert not np.allclose(result, vanilla_features(queries, references, top_k=3))


def test_vanilla_features_refuse_too_few_references_and_another_dimension():
    with pytest.raises(ValueError, match="got top_k=8 with 5 references"):
        vanilla_features(np.ones((2, 6)), make(m=5))
    with pytest.raises(ValueError, match="with 6 columns like the references, got 7"):
        vanilla_features(np.ones((2, 7)), make())


def test_vanilla_features_refuse_nan_in_every_scale():
    bad = np.ones((2, 6), np.float32)
    bad[1, 2] = np.nan
    for scale in ("unit", "raw", "mixed"):
        with pytest.raises(ValueError, match="Row 1 of image_features is (zero or )?not finite"):
            vanilla_features(bad, make(), scale=scale)
        with pytest.raises(ValueError, match="Row 1 of .* is (zero or )?not finite"):
            vanilla_features(bad, make(), scale=scale, neighbor_indices=np.zeros((2, 3), int))
