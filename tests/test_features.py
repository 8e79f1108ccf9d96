"""Features on disk: writing whole files or none, content keys, the resuming cache, packs."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from impart_utils import config
from impart_utils.sources import features
from impart_utils.sources.features import (
    Pack,
    atomic_path,
    check_pack,
    content_hash,
    encode_to_cache,
    file_hash,
    load_pack,
    save_pack,
)

# ---- whole files or none ----

def test_atomic_path_writes_the_file_and_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "data.npz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".npz"
        assert not path.exists()
        np.savez(temporary, x=np.arange(3))
    np.testing.assert_array_equal(np.load(path)["x"], [0, 1, 2])
    assert list(path.parent.iterdir()) == [path]


def test_atomic_path_replaces_the_old_file_only_at_the_end(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("old")
    with open(path) as reader:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.read() == "old"  # renamed, not written over: a reader keeps the whole old file


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_keeps_the_old_file_where_the_block_fails(tmp_path, error):
    path = tmp_path / "data.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error("stopped")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_leaves_nothing_where_there_was_nothing(tmp_path):
    with pytest.raises(OSError, match="disk"), atomic_path(tmp_path / "data.txt") as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_atomic_path_makes_files_as_readable_as_others(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


# ---- content keys ----

def test_content_hash_tells_everything_apart():
    x = np.arange(6, dtype=np.float32)
    parts = [
        (),
        ("",),
        ("a",),
        ("b",),
        ("a", "b"),
        ("ab",),
        (["a", "b"],),
        (1,),
        (1.5,),
        ("1",),
        (True,),
        (None,),
        (b"a",),
        (x,),
        (x.reshape(2, 3),),
        (x.reshape(3, 2),),
        (x.astype(np.float64),),
        (x.astype(np.int32),),
        (x[::-1],),
        (x[:5],),
        (x, x),
        ({"a": 1},),
        ({"a": 2},),
        ({"b": 1},),
        ([1, 2],),
        ([2, 1],),
        ([[1], 2],),
    ]
    hashes = [content_hash(*part) for part in parts]
    assert len(set(hashes)) == len(parts)
    assert all(len(text) == 16 and set(text) <= set("0123456789abcdef") for text in hashes)


def test_content_hash_sees_each_element_and_each_bit():
    x = np.zeros(5000)
    changed = x.copy()
    changed[2500] = np.nextafter(0, 1)
    assert content_hash(x) != content_hash(changed)
    assert content_hash([x]) != content_hash([changed])
    assert content_hash({"features": x}) != content_hash({"features": changed})


def test_content_hash_depends_on_content_alone():
    x = np.arange(12.0).reshape(3, 4)
    assert content_hash(x.T) == content_hash(np.ascontiguousarray(x.T))
    assert content_hash(x[::2]) == content_hash(x[::2].copy())
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})


def test_content_hash_is_the_same_in_another_process():
    parts = ("a", 1, [2.5, None], {"b": ["c"]})
    code = f"from impart_utils.sources.features import content_hash; print(content_hash(*{parts!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=config.ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == content_hash(*parts)


def test_content_hash_separates_its_parts():
    assert content_hash(b"a\x00b") != content_hash(b"a", b"b")


def test_file_hash(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- the cache of encoded items ----

class Encoder:
    """Numbers to vectors; notes each batch, and can be told to fail at one."""

    def __init__(self, fail_at=None):
        self.batches, self.fail_at = [], fail_at

    def __call__(self, items):
        if self.fail_at in items:
            raise KeyboardInterrupt
        self.batches.append(list(items))
        return np.array([[item, item ** 2, -1] for item in items], np.float64)


def numbered(n):
    return [(f"item-{i}", i) for i in range(n)]


def expected(numbers):
    return np.array([[i, i ** 2, -1] for i in numbers], np.float32)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(features, "SHARD_ITEMS", 10)


@pytest.mark.parametrize("n", [1, 9, 10, 11, 20, 23])
@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_cache_equals_encoding_directly(tmp_path, small_shards, n, batch_size):
    encode = Encoder()
    result, ids, skipped = encode_to_cache(encode, numbered(n), tmp_path, key="k", batch_size=batch_size)
    np.testing.assert_array_equal(result, expected(range(n)))
    assert result.dtype == np.float32
    assert ids == [f"item-{i}" for i in range(n)] and skipped == {}
    assert sum(encode.batches, []) == list(range(n))  # each once, in order
    assert max(map(len, encode.batches)) <= batch_size


def test_second_call_reads_from_disk(tmp_path, small_shards):
    first = encode_to_cache(Encoder(), numbered(23), tmp_path, key="k", batch_size=4)
    encode = Encoder()
    second = encode_to_cache(encode, numbered(23), tmp_path, key="k", batch_size=7)
    assert encode.batches == []
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:] == second[1:]


def test_a_killed_run_goes_on_where_it_was(tmp_path, small_shards):
    with pytest.raises(KeyboardInterrupt):
        encode_to_cache(Encoder(fail_at=17), numbered(35), tmp_path, key="k", batch_size=4)
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["shard-000000.safetensors"]  # and no temporary file
    encode = Encoder()
    result, ids, _ = encode_to_cache(encode, numbered(35), tmp_path, key="k", batch_size=4)
    assert sum(encode.batches, []) == list(range(10, 35))
    np.testing.assert_array_equal(result, expected(range(35)))
    assert ids == [f"item-{i}" for i in range(35)]


def test_a_shard_lost_in_the_middle_is_the_only_one_made_again(tmp_path, small_shards):
    encode_to_cache(Encoder(), numbered(35), tmp_path, key="k", batch_size=4)
    (folder,) = tmp_path.iterdir()
    (folder / "shard-000001.safetensors").unlink()
    encode = Encoder()
    result, _, _ = encode_to_cache(encode, numbered(35), tmp_path, key="k", batch_size=4)
    assert sum(encode.batches, []) == list(range(10, 20))
    np.testing.assert_array_equal(result, expected(range(35)))


def test_another_key_or_other_ids_compute_again_and_leave_the_old(tmp_path, small_shards):
    encode_to_cache(Encoder(), numbered(12), tmp_path, key="k", batch_size=4)
    for key, items in (("other", numbered(12)), ("k", numbered(13)), ("k", numbered(12)[::-1])):
        encode = Encoder()
        result, ids, _ = encode_to_cache(encode, items, tmp_path, key=key, batch_size=4)
        assert sum(encode.batches, []) == [item for _, item in items]
        np.testing.assert_array_equal(result, expected(item for _, item in items))
        assert ids == [name for name, _ in items]
    encode = Encoder()
    encode_to_cache(encode, numbered(12), tmp_path, key="k", batch_size=4)
    assert encode.batches == [] and len(list(tmp_path.iterdir())) == 4


def test_items_can_be_functions_that_open_them_when_their_turn_comes(tmp_path, small_shards):
    opened = []

    def opener(i):
        def open_item():
            opened.append(i)
            return i
        return open_item

    with pytest.raises(KeyboardInterrupt):
        encode_to_cache(
            Encoder(fail_at=5), [(str(i), opener(i)) for i in range(30)], tmp_path, key="k", batch_size=4
        )
    assert opened == list(range(8))  # not all 30 at once: two batches


def broken_items(n, broken):
    def opener(i):
        def open_item():
            if i in broken:
                raise OSError(f"picture {i} is cut short")
            return i
        return open_item
    return [(f"item-{i}", opener(i)) for i in range(n)]


@pytest.mark.parametrize(
    "broken", [{0}, {13}, {22}, {4, 5, 6, 7}, set(range(10, 20)), {0, 9, 10, 19, 20, 22}]
)
def test_items_that_can_not_be_opened_are_left_out_with_their_reason(tmp_path, small_shards, broken):
    for _ in range(2):  # the second time from disk
        result, ids, skipped = encode_to_cache(
            Encoder(), broken_items(23, broken), tmp_path, key="k", batch_size=4
        )
        kept = [i for i in range(23) if i not in broken]
        np.testing.assert_array_equal(result, expected(kept))
        assert ids == [f"item-{i}" for i in kept]
        assert skipped == {f"item-{i}": f"OSError: picture {i} is cut short" for i in broken}


def test_no_item_that_can_be_opened(tmp_path, small_shards):
    with pytest.raises(
        ValueError, match="None of 12 items could be opened; the first reason: OSError: picture 0 is cut"
    ):
        encode_to_cache(Encoder(), broken_items(12, range(12)), tmp_path, key="k", batch_size=4)


def test_a_failing_encoder_is_not_taken_for_a_broken_item(tmp_path):
    def encode(items):
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_to_cache(encode, numbered(3), tmp_path, key="k", batch_size=4)


def test_ids_that_occur_twice(tmp_path):
    with pytest.raises(ValueError, match="one item per id, got id 'b' more than once"):
        encode_to_cache(Encoder(), [("a", 0), ("b", 1), ("c", 2), ("b", 3)], tmp_path, key="k")


def test_nothing_to_encode(tmp_path):
    with pytest.raises(ValueError, match="Expected at least one item to encode"):
        encode_to_cache(Encoder(), [], tmp_path, key="k")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_name_the_item_and_are_not_kept(tmp_path, value):
    def encode(items):
        result = Encoder()(items)
        result[np.array(items) == 6, 1] = value
        return result

    with pytest.raises(
        ValueError, match="Features of item 'item-6' are not finite. Encode with precision='fp32'"
    ):
        encode_to_cache(encode, numbered(9), tmp_path, key="k", batch_size=4)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("shape", [(3, 2), (5, 2), (4,), (4, 1, 2)])
def test_an_encoder_that_drops_or_adds_rows(tmp_path, shape):
    with pytest.raises(
        ValueError, match=r"encode to return one row for each of 4 items, got an array of shape \("
    ):
        encode_to_cache(lambda items: np.ones(shape), numbered(4), tmp_path, key="k")


@pytest.mark.parametrize("workers", [0, 2, None])
def test_items_opened_by_other_processes_give_the_same_rows(tmp_path, small_shards, workers):
    broken = {4, 13, 22}
    result, ids, skipped = encode_to_cache(
        Encoder(), broken_items(23, broken), tmp_path, key="k", batch_size=4, workers=workers)
    np.testing.assert_array_equal(result, expected(i for i in range(23) if i not in broken))
    assert ids == [f"item-{i}" for i in range(23) if i not in broken]
    assert skipped == {f"item-{i}": f"OSError: picture {i} is cut short" for i in broken}


@pytest.mark.parametrize("workers", [0, 2])
def test_encode_gets_what_prepare_makes(tmp_path, small_shards, workers):
    def prepare(i):
        if i == 7:
            raise ValueError("no pixels")
        return i + 100

    encode = Encoder()
    result, _, skipped = encode_to_cache(encode, numbered(23), tmp_path, key="k", prepare=prepare,
                                         batch_size=4, workers=workers)
    np.testing.assert_array_equal(result, expected(i + 100 for i in range(23) if i != 7))
    assert skipped == {"item-7": "ValueError: no pixels"}
    assert max(map(len, encode.batches)) == 4


def test_a_picture_that_breaks_while_it_is_read_is_skipped(tmp_path):
    """PIL opens a file by its first bytes and reads the rest when asked: the end may be missing."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in "abc":
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    result, ids, skipped = encode_to_cache(
        lambda pictures: [np.asarray(picture).mean(axis=(0, 1)) for picture in pictures],
        [(name, lambda name=name: Image.open(tmp_path / f"{name}.jpg")) for name in "abc"],
        tmp_path / "cache", key="k")
    assert ids == ["a", "c"] and result.shape == (2, 3)
    assert skipped["b"].startswith("OSError: image file is truncated")


def test_progress_says_how_many_items_a_second(tmp_path, capsys):
    encode_to_cache(Encoder(), numbered(5), tmp_path / "digits", key="k")
    assert "encoding digits" in (shown := capsys.readouterr().out) and "items/s" in shown
    encode_to_cache(Encoder(), numbered(5), tmp_path / "digits", key="k")
    assert capsys.readouterr().out == ""  # all is there


KILLED = """
import os, sys, time
from pathlib import Path
from impart_utils.sources import features
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
features.SHARD_ITEMS = 10
def opener(i):
    def open_item():
        (folder / "pids" / str(os.getpid())).touch()
        return i
    return open_item
def encode(items):
    time.sleep(0.1)
    return [[i, i ** 2, -1] for i in items]
items = [(f"item-{i}", opener(i)) for i in range(100)]
features.encode_to_cache(encode, items, folder / "cache", key="k", batch_size=5, workers=workers)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_killed_outright_costs_one_shard(tmp_path, small_shards, workers):
    (tmp_path / "pids").mkdir()
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(workers)], cwd=config.ROOT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cache/*/shard-000001*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(list(tmp_path.glob("cache/*/shard-*")))
    assert 2 <= finished < 10
    encode = Encoder()
    result, _, _ = encode_to_cache(encode, numbered(100), tmp_path / "cache", key="k", batch_size=5)
    assert sum(encode.batches, []) == list(range(10 * finished, 100))  # whole shards are not made again
    np.testing.assert_array_equal(result, expected(range(100)))
    pids = {int(path.name) for path in (tmp_path / "pids").iterdir()} - {process.pid}
    assert len(pids) == workers
    while any(_running(pid) for pid in pids) and time.monotonic() < deadline:  # nobody ends them but they
        time.sleep(0.2)
    assert not any(_running(pid) for pid in pids)


def _running(pid):
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---- packs ----

def make_pack(m=4, d=3, **changes):
    rng = np.random.default_rng(0)
    parts = dict(
        image_features=rng.normal(size=(m, d)).astype(np.float32),
        ids=[f"p{row}" for row in range(m)],
        model="fake CLIP",
        text_features=rng.normal(size=(m, d)).astype(np.float32),
        captions=["one", "", "None", "ünï\n"][:m],
        labels=np.array([1, 0, 1, 1][:m]),
        class_names=["cat", "dog"],
        class_features=rng.normal(size=(2, d)).astype(np.float32),
        prompts=["a cat", "a dog"],
        metadata={"source": "the test", "columns": {"licence": ["BY"] * m}},
    )
    return Pack(**{**parts, **changes})


def assert_same(pack, other):
    for name in ("image_features", "text_features", "labels", "class_features"):
        first, second = getattr(pack, name), getattr(other, name)
        if first is None:
            assert second is None
        else:
            assert first.dtype == second.dtype and first.tobytes() == second.tobytes(), name
    for name in ("ids", "model", "captions", "class_names", "prompts", "metadata"):
        assert getattr(pack, name) == getattr(other, name), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text_features": None, "captions": None},
        {"labels": None, "class_names": None, "class_features": None},
        {"class_features": None, "prompts": None, "metadata": {}},
    ],
)
def test_a_pack_comes_back_as_it_was(tmp_path, changes):
    pack = make_pack(**changes)
    save_pack(tmp_path / "pack.safetensors", pack)
    assert_same(pack, load_pack(tmp_path / "pack.safetensors"))
    assert_same(pack, load_pack(str(tmp_path / "pack.safetensors")))
    assert pack.key == load_pack(tmp_path / "pack.safetensors").key


def test_key_of_a_pack_changes_with_its_features():
    plain = make_pack()
    changed = [make_pack(**{name: getattr(plain, name) + 1}) for name in ("image_features", "text_features")]
    changed.append(make_pack(labels=1 - plain.labels))
    assert len({pack.key for pack in (plain, *changed)}) == 4


def test_a_pack_that_is_not_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no feature pack at .*nowhere.npz. Check the path given after 'pack:'"
    ):
        load_pack(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "images.npz", image_features=np.ones((2, 3)))
    with pytest.raises(FileNotFoundError, match="no feature pack at .*texts.npz"):
        load_pack(f"{tmp_path}/images.npz+{tmp_path}/texts.npz")


def test_a_folder_with_a_plus_in_its_name(tmp_path):
    (tmp_path / "c++").mkdir()
    save_pack(tmp_path / "c++" / "pack.safetensors", make_pack())
    assert load_pack(tmp_path / "c++" / "pack.safetensors").ids == make_pack().ids


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_a_pack_cut_short(tmp_path, keep):
    save_pack(tmp_path / "pack.safetensors", make_pack())
    path = tmp_path / "short.safetensors"
    path.write_bytes((tmp_path / "pack.safetensors").read_bytes()[:keep])
    with pytest.raises(ValueError, match="short.safetensors is not a whole safetensors file"):
        load_pack(path)


def test_safetensors_that_are_no_pack(tmp_path):
    from safetensors.numpy import save_file

    save_file({"image_features": np.ones((2, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors is a safetensors file but no feature pack"):
        load_pack(tmp_path / "other.safetensors")


def test_npz_of_a_test_set(tmp_path):
    x, W = np.arange(1, 13).reshape(4, 3).astype(np.float16), np.eye(3)[:2]
    np.savez(tmp_path / "set.npz", image_features=x, labels=np.array([1, 0, 1, 1], np.int32),
             label_names=np.array(["cat", "dog"]), text_features=W, text_prompts=np.array(["a cat", "a dog"]),
             images=np.zeros((4, 2, 2, 3), np.uint8), model=np.array(["OpenAI CLIP ViT-B/32"]))
    pack = load_pack(tmp_path / "set.npz")
    np.testing.assert_array_equal(pack.image_features, x)
    assert (
        pack.image_features.dtype == pack.class_features.dtype == np.float32 and pack.labels.dtype == np.int64
    )
    np.testing.assert_array_equal(pack.class_features, W)
    assert pack.text_features is None and pack.captions is None
    assert (pack.ids, pack.class_names, pack.prompts) == (
        ["0", "1", "2", "3"],
        ["cat", "dog"],
        ["a cat", "a dog"],
    )
    assert pack.model == "OpenAI CLIP ViT-B/32"


def test_npz_of_pairs(tmp_path):
    x = np.arange(1, 13).reshape(4, 3)
    np.savez(tmp_path / "pairs.npz", image_features=x, text_features=x + 1, captions=np.array(list("abcd")),
             image_id=np.array([7, 9, 8, 6]))
    pack = load_pack(tmp_path / "pairs.npz")
    np.testing.assert_array_equal(pack.text_features, x + 1)
    assert pack.captions == list("abcd") and pack.ids == ["7", "9", "8", "6"]
    assert pack.class_features is None and pack.labels is None and pack.model == "unknown"


def test_npz_with_its_texts_in_a_second_file(tmp_path):
    x, vocabulary = np.arange(1, 13).reshape(4, 3), np.arange(100, 115).reshape(5, 3)
    np.savez(tmp_path / "images.npz", image_features=x, pseudo_text_index=np.array([4, 0, 4, 2]))
    np.savez(
        tmp_path / "texts.npz", text_features=vocabulary, labels=np.array(["ant", "bee", "cat", "dog", "elk"])
    )
    pack = load_pack(f"{tmp_path}/images.npz+{tmp_path}/texts.npz")
    np.testing.assert_array_equal(pack.text_features, vocabulary[[4, 0, 4, 2]])
    assert pack.captions == ["a elk", "a ant", "a elk", "a cat"]
    assert pack.metadata == {"source": "images.npz", "texts": "texts.npz"}


def test_npz_with_a_second_file_but_no_index(tmp_path):
    np.savez(tmp_path / "images.npz", image_features=np.ones((2, 3)))
    np.savez(tmp_path / "texts.npz", text_features=np.ones((2, 3)))
    with pytest.raises(ValueError, match="Expected text_index or pseudo_text_index in .*images.npz"):
        load_pack(f"{tmp_path}/images.npz+{tmp_path}/texts.npz")


@pytest.mark.parametrize("index", [[0, 5], [0, -1]])
def test_an_index_that_points_outside_the_texts(tmp_path, index):
    np.savez(tmp_path / "images.npz", image_features=np.ones((2, 3)), text_index=np.array(index))
    np.savez(tmp_path / "texts.npz", text_features=np.ones((5, 3)))
    with pytest.raises(ValueError, match="text_index"):
        load_pack(f"{tmp_path}/images.npz+{tmp_path}/texts.npz")


def test_a_second_file_without_texts(tmp_path):
    np.savez(tmp_path / "images.npz", image_features=np.ones((2, 3)), text_index=np.array([0, 1]))
    np.savez(tmp_path / "texts.npz", other=np.ones((5, 3)))
    with pytest.raises(ValueError, match="text_features in .*texts.npz"):
        load_pack(f"{tmp_path}/images.npz+{tmp_path}/texts.npz")


def test_an_npz_that_could_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    np.savez(tmp_path / "bomb.npz", image_features=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="bomb.npz is not an .npz of plain arrays"):
        load_pack(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut short", "npy"])
def test_an_npz_that_is_none(tmp_path, content):
    path = tmp_path / "broken.npz"
    if content == "npy":
        np.save(tmp_path / "array.npy", np.ones((2, 3)))
        content = (tmp_path / "array.npy").read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.npz is not an .npz of plain arrays"):
        load_pack(path)


def test_an_npz_without_image_features_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "other.npz", embeddings=np.ones((2, 3)), names=np.array(["a", "b"]))
    with pytest.raises(
        ValueError, match="Expected an array image_features in .*other.npz, found embeddings, names"
    ):
        load_pack(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ids": ["a"]}, "expected 4 rows in ids, got 1"),
        ({"captions": ["a"] * 5}, "expected 4 rows in captions, got 5"),
        ({"labels": np.array([0, 1])}, "expected 4 rows in labels, got 2"),
        ({"text_features": np.ones((3, 3), np.float32)}, "expected 4 rows in text_features, got 3"),
        (
            {"text_features": np.ones((4, 2), np.float32)},
            r"expected text_features with 3 columns, got shape \(4, 2\)",
        ),
        (
            {"class_features": np.ones((2, 5), np.float32)},
            r"expected class_features with 3 columns, got shape \(2, 5\)",
        ),
        (
            {"class_features": np.ones((3, 3), np.float32)},
            "expected one row of class_features for each class name",
        ),
        ({"labels": np.array([0, 1, 2, 0])}, "expected labels from 0 to 1 with one class name each"),
        ({"labels": np.array([0, 1, -1, 0])}, "expected labels from 0 to 1"),
        ({"image_features": np.ones(4, np.float32)}, "image_features"),
        ({"image_features": np.ones((4, 3, 2), np.float32)}, "image_features"),
    ],
)
def test_packs_whose_parts_do_not_fit_name_their_file(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"the file: .*{message}"):
        check_pack(make_pack(**changes), "the file")
    with pytest.raises(ValueError, match=message):  # and nothing wrong is written
        save_pack(tmp_path / "pack.safetensors", make_pack(**changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["image_features", "text_features", "class_features"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 0])
def test_packs_with_rows_without_a_direction_name_file_and_row(name, value):
    bad = np.array(getattr(make_pack(), name))
    bad[1] = value
    with pytest.raises(ValueError, match=f"the file: row 1 of {name} is zero or not finite"):
        check_pack(make_pack(**{name: bad}), "the file")


def test_no_header_of_a_pack_holds_more_than_json(tmp_path):
    from safetensors import safe_open

    save_pack(tmp_path / "pack.safetensors", make_pack())
    with safe_open(tmp_path / "pack.safetensors", "np") as file:
        assert json.loads(file.metadata()["impart_pack"])["ids"] == ["p0", "p1", "p2", "p3"]
