"""Finding, fetching and verifying checkpoints; downloads come from a server on localhost."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_download import Server, archive, asked_ranges, status

from impart_utils.config import MissingInput, load_config
from impart_utils.preflight import require_inputs
from impart_utils.sources import checkpoints, clip_checks, download
from impart_utils.sources.checkpoint_formats import copy_path, read_copy
from impart_utils.sources.checkpoints import (
    ARCHITECTURES,
    clip_cache_path,
    find_checkpoint,
    import_clip,
    official_hash,
    read_checkpoint,
    verify,
)
from impart_utils.sources.clip_architectures import architecture, build_model
from impart_utils.sources.features import file_hash

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit and pkg_resources announce their end


def no_numbers(name):
    """A state dict with the shapes that a name promises and no numbers in it."""
    from clip.model import CLIP

    shapes = ARCHITECTURES[name]
    blocks = shapes.blocks if shapes.patch else {"tiny": (1, 1, 1, 1), "RN50": (3, 4, 6, 3)}[name]
    with torch.device("meta"):
        return CLIP(shapes.dim, shapes.pixels, blocks, shapes.width, shapes.patch, 77, 49408,
                    shapes.text_width, shapes.text_width // 64, shapes.text_blocks).state_dict()


# ---- which weights these are ----

def test_openais_own_file_is_known_by_its_hash():
    name = "ViT-B/32"
    assert official_hash(name) == "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    assert verify(no_numbers(name), "file.pt", name, sha256=official_hash(name)) == "OpenAI ViT-B/32"
    assert official_hash("tiny") is None


def test_weights_of_unknown_origin_are_refused_unless_allowed_and_then_named():
    state_dict, sha256 = no_numbers("ViT-B/32"), "abcdef0123456789" * 4
    with pytest.raises(
        ValueError,
        match="mine.pt isn't OpenAI's file for ViT-B/32: its SHA-256 begins abcdef012345, "
        "OpenAI's 40d365715913.*--set allow_unverified_clip=True",
    ):
        verify(state_dict, "mine.pt", "ViT-B/32", sha256=sha256)
    provenance = verify(state_dict, "mine.pt", "ViT-B/32", sha256=sha256, allow_unverified=True)
    assert provenance == "unverified weights of ViT-B/32's architecture, SHA-256 abcdef012345"


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    ("found", "name", "said"),
    [
        ("ViT-B/16", "ViT-B/32", "patch is 16, expected 32. Its shapes are those of ViT-B/16"),
        ("ViT-B/32", "ViT-B/16", "patch is 32, expected 16. Its shapes are those of ViT-B/32"),
        ("ViT-L/14", "ViT-L/14@336px", "pixels is 224, expected 336. Its shapes are those of ViT-L/14:"),
        ("RN50", "RN101", "blocks is 16, expected 33, dim is 1024, expected 512. Its shapes .* RN50:"),
        ("ViT-B/32", "tiny", "width is 768, expected 16, blocks is 12, .*patch is 32, expected None"),
        ("tiny", "ViT-B/32", "width is 16, .*patch is None, .*text width is 64, expected 512.*those of tiny"),
    ],
)
def test_another_architecture_than_the_name_is_always_refused(found, name, said, allow):
    with pytest.raises(ValueError, match=f"mine.pt isn't a {name}: {said}"):
        verify(no_numbers(found), "mine.pt", name, sha256="0" * 64, allow_unverified=allow)


def test_a_name_whose_architecture_is_not_listed_is_not_held_against_the_weights(monkeypatch):
    """A later version of clip may know more names: then the hash decides, and the words say so."""
    weights = no_numbers("ViT-B/16")
    monkeypatch.delitem(ARCHITECTURES, "ViT-B/16")
    assert verify(weights, "a.pt", "ViT-B/16", sha256=official_hash("ViT-B/16")) == "OpenAI ViT-B/16"
    provenance = verify(weights, "a.pt", "ViT-B/16", sha256="ab" * 32, allow_unverified=True)
    assert provenance == "unverified weights of ViT-B/16's name (its architecture can't be checked), " \
                         "SHA-256 abababababab"


@pytest.mark.parametrize("allow", [False, True])
def test_weights_said_to_have_plain_gelu_are_always_refused(tmp_path, allow):
    weights, path = no_numbers("ViT-B/32"), tmp_path / "open_clip_pytorch_model.bin"
    config = {"model_cfg": {"embed_dim": 512, "vision_cfg": {"patch_size": 32}}}  # as laion's
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError,
        match='open_clip_pytorch_model.bin holds weights for another activation function: '
        'open_clip_config.json beside it has no "quick_gelu": true.*Take OpenAI\'s own ViT-B/32',
    ):
        verify(weights, path, "ViT-B/32", sha256="0" * 64, allow_unverified=allow)
    # what lies beside OpenAI's own file says nothing of it
    assert verify(weights, path, "ViT-B/32", sha256=official_hash("ViT-B/32")) == "OpenAI ViT-B/32"
    config["model_cfg"]["quick_gelu"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert verify(weights, path, "ViT-B/32", sha256="0" * 64, allow_unverified=True).startswith("unverified")


def test_a_tiny_clip_of_ones_own(tmp_path, resnet):
    """Trained anew (notebook 00, benchmarks/retrain): not the kit's file, so not taken for it."""
    with pytest.raises(ValueError, match="mine.safetensors isn't .*--set allow_unverified_clip=True"):
        verify(resnet.state_dict(), tmp_path / "mine.safetensors", "tiny", sha256="0" * 64)
    provenance = verify(
        resnet.state_dict(), tmp_path / "mine.safetensors", "tiny", sha256="0" * 64, allow_unverified=True
    )
    assert "unverified" in provenance and "tiny" in provenance
    assert (
        verify(resnet.state_dict(), checkpoints.TINY_PATH, "tiny", sha256="0" * 64)
        == "the kit's tiny CLIP (toy world)"
    )


# ---- finding ----

@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path))
    return tmp_path


def test_a_given_file_is_taken_and_a_missing_one_is_named(tmp_path, home):
    (tmp_path / "mine.pt").write_bytes(b"x")
    assert find_checkpoint("ViT-B/32", tmp_path / "mine.pt") == tmp_path / "mine.pt"
    assert find_checkpoint("ViT-B/32", "~/mine.pt") == tmp_path / "mine.pt"
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at .*nowhere.pt. Check the path"):
        find_checkpoint("ViT-B/32", tmp_path / "nowhere.pt")


def test_weights_that_are_not_on_this_machine(home):
    with pytest.raises(MissingInput) as error:
        find_checkpoint("ViT-B/32")
    message = str(error.value)
    assert "The weights of CLIP ViT-B/32 are not on this machine" in message
    assert 'python -m impart_utils.sources.checkpoints "ViT-B/32"' in message
    assert (
        "--set clip_checkpoint=PATH" in message and str(home / ".cache" / "clip" / "ViT-B-32.pt") in message
    )


def test_weights_in_clips_own_cache_are_found(home):
    path = clip_cache_path("ViT-B/32")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert find_checkpoint("ViT-B/32") == path == home / ".cache" / "clip" / "ViT-B-32.pt"


def test_unknown_names_list_the_known():
    with pytest.raises(
        ValueError, match="Unknown CLIP 'ViT-B32'. Known: tiny, RN50, .*ViT-B/32, .*or give the path"
    ):
        find_checkpoint("ViT-B32")


def test_the_tiny_clip_missing_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "TINY_PATH", tmp_path / "toy_clip.safetensors")
    with pytest.raises(
        FileNotFoundError, match="toy_clip.safetensors is missing.*impart_utils.toy_world.train_clip"
    ):
        find_checkpoint("tiny")
    (tmp_path / "toy_clip.safetensors").write_bytes(b"x")
    assert find_checkpoint("tiny") == tmp_path / "toy_clip.safetensors"


# ---- fetching ----

@pytest.fixture(scope="module")
def published(vit, tmp_path_factory):
    """A small CLIP as OpenAI would publish it: a TorchScript archive in half precision."""
    path = tmp_path_factory.mktemp("published") / "ViT-B-32.pt"
    with torch.no_grad():
        traced = torch.jit.trace(vit, (torch.randn(2, 3, 32, 32), import_clip().tokenize(["a", "b"])),
                                 check_trace=False)
    traced.half().save(path)
    vit.float()
    return path.read_bytes()


@pytest.fixture
def server(published, home, monkeypatch, vit):
    """A server that stands in for OpenAI's; `routes[address]` may be replaced by a worse one."""
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setitem(ARCHITECTURES, "ViT-B/32", architecture(vit.state_dict()))
    address = f"/clip/models/{hashlib.sha256(published).hexdigest()}/ViT-B-32.pt"
    with Server({address: archive(published)}) as server:
        server.address = address
        monkeypatch.setitem(import_clip().clip._MODELS, "ViT-B/32", server.url + address)
        yield server


def test_weights_that_are_not_here_are_fetched_where_asked_and_then_kept(server, published):
    path = find_checkpoint("ViT-B/32", fetch=True)
    assert path == clip_cache_path("ViT-B/32") and path.read_bytes() == published
    assert find_checkpoint("ViT-B/32", fetch=True) == path and len(server.asked) == 1


def test_without_being_asked_nothing_is_fetched(server):
    with pytest.raises(MissingInput, match="are not on this machine"):
        find_checkpoint("ViT-B/32")
    with pytest.raises(FileNotFoundError):
        find_checkpoint("ViT-B/32", "nowhere.pt", fetch=True)
    with pytest.raises(MissingInput, match="The paper profile can't start, nothing was downloaded"):
        require_inputs(load_config("paper"), ["00"])  # what ./run_all.sh asks before the first notebook
    assert server.asked == []


def test_a_server_that_breaks_off_is_asked_for_the_rest(server, published):
    third = len(published) // 3
    server.routes[server.address] = archive(published, cuts=[third, third])
    assert find_checkpoint("ViT-B/32", fetch=True).read_bytes() == published
    assert asked_ranges(server) == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_server_without_byte_ranges_starts_over(server, published):
    server.routes[server.address] = archive(published, cuts=[len(published) // 3], ranges=False)
    path = find_checkpoint("ViT-B/32", fetch=True)
    assert path.read_bytes() == published and len(server.asked) == 2
    assert [each.name for each in path.parent.iterdir()] == ["ViT-B-32.pt"]


def test_a_fetch_that_fails_says_what_else_will_do_and_goes_on_later(server, published):
    server.routes[server.address] = archive(published, cuts=[5000, 0, 0, 0, 0])
    with pytest.raises(MissingInput) as error:
        find_checkpoint("ViT-B/32", fetch=True)
    message = str(error.value)
    assert "5,000 bytes are kept in ViT-B-32.pt.part" in message and server.url in message
    assert "--set clip_checkpoint=PATH (in Python checkpoint=PATH)" in message
    assert not clip_cache_path("ViT-B/32").exists()
    server.routes[server.address] = archive(published)
    assert find_checkpoint("ViT-B/32", fetch=True).read_bytes() == published
    assert asked_ranges(server)[-1] == "bytes=5000-"


def test_what_the_server_sends_instead_is_not_kept(server, published):
    for answer, said in ((published[:-1] + b"x", "gave a file with sha256"), (status(404), "HTTP 404"),
                         (b"<!DOCTYPE html><html></html>", "web page instead of the file")):
        server.routes[server.address] = answer
        with pytest.raises(MissingInput, match=said):
            find_checkpoint("ViT-B/32", fetch=True)
        assert not clip_cache_path("ViT-B/32").exists()


# ---- reading, and the copy in safetensors ----

def equal(a, b):
    return set(a) == set(b) and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def test_openais_file_is_read_once_and_then_its_copy(server, published, monkeypatch):
    path = find_checkpoint("ViT-B/32", fetch=True)
    first = read_checkpoint(path, "ViT-B/32")
    assert copy_path(path).is_file() and first[1] == hashlib.sha256(published).hexdigest()

    def refuse(path):
        raise AssertionError("read again")

    monkeypatch.setattr(checkpoints, "read_state_dict", refuse)
    monkeypatch.setattr(checkpoints, "file_hash", refuse)
    second = read_checkpoint(path, "ViT-B/32")
    assert second[1] == first[1] and equal(first[0], second[0])
    assert next(iter(second[0].values())).dtype == torch.float16


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_a_broken_copy_is_made_anew(server, monkeypatch, content):
    path = find_checkpoint("ViT-B/32", fetch=True)
    first, _ = read_checkpoint(path, "ViT-B/32")
    whole = copy_path(path).read_bytes()
    assert read_copy(path, official_hash("ViT-B/32")) is not None
    copy_path(path).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if content is None else content)
    assert read_copy(path, official_hash("ViT-B/32")) is None
    again, _ = read_checkpoint(path, "ViT-B/32")
    assert equal(first, again) and equal(first, read_copy(path, official_hash("ViT-B/32")))


def test_a_file_that_takes_the_place_of_openais_is_not_served_from_the_copy(server, vit):
    path = find_checkpoint("ViT-B/32", fetch=True)
    read_checkpoint(path, "ViT-B/32")
    torch.save(vit.state_dict(), path)  # other weights under the same name
    state_dict, sha256 = read_checkpoint(path, "ViT-B/32")
    assert sha256 == file_hash(path) != official_hash("ViT-B/32")
    for allow in (False, True):
        with pytest.raises(ValueError, match="ViT-B-32.pt has the name of OpenAI's file for ViT-B/32, but "
                                             "its SHA-256 begins .*cut short or replaced. Fetch it anew"):
            verify(state_dict, path, "ViT-B/32", sha256=sha256, allow_unverified=allow)


@pytest.mark.parametrize(("content", "said"), [(b"<html>404</html>", "is an HTML or XML page"),
                                               (b"PK\x03\x04 half", "may be cut short")])
def test_a_bad_file_in_clips_cache_says_how_to_get_a_good_one(server, content, said):
    path = clip_cache_path("ViT-B/32")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)  # clip's own downloader has no temporary name
    with pytest.raises(ValueError, match=f'{said}.*Fetch it anew, which replaces it: python -m '
                                         'impart_utils.sources.checkpoints "ViT-B/32"'):
        read_checkpoint(path, "ViT-B/32")
    other = path.with_name("mine.pt")
    other.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        read_checkpoint(other, "ViT-B/32")
    assert "Fetch it anew" not in str(error.value)


def test_no_copy_is_kept_of_weights_that_are_not_openais(tmp_path, vit):
    torch.save(vit.state_dict(), tmp_path / "mine.pt")
    state_dict, sha256 = read_checkpoint(tmp_path / "mine.pt", "ViT-B/32")
    assert equal(state_dict, vit.state_dict()) and sha256 == file_hash(tmp_path / "mine.pt")
    read_checkpoint(tmp_path / "mine.pt", "tiny")
    assert [each.name for each in tmp_path.iterdir()] == ["mine.pt"]


# ---- the command ----

def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["checkpoints", *map(str, arguments)])
    checkpoints.main()


def test_the_command_fetches_what_is_not_there_whole(server, published, monkeypatch, capsys):
    command(monkeypatch, "ViT-B/32")
    path = clip_cache_path("ViT-B/32")
    assert path.read_bytes() == published and f"CLIP ViT-B/32 is at {path}" in capsys.readouterr().out
    command(monkeypatch)  # the default
    assert len(server.asked) == 1 and "is there and whole" in capsys.readouterr().out
    path.write_bytes(b"cut short")
    command(monkeypatch, "ViT-B/32")
    assert path.read_bytes() == published


def test_the_command_lists_the_known_names(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, "ViT-B32")
    assert "'ViT-B/32'" in capsys.readouterr().err


class Stub:
    """A loaded CLIP whose vectors are given: prompts' and pictures' rows of `features`."""

    def __init__(self, texts, pictures=None):
        self.provenance, self.texts, self.pictures = "unverified weights", texts, pictures

    def encode_texts(self, texts):
        return self.texts

    def encode_images(self, pictures):
        return self.pictures(pictures)


def vectors_with(cosines):
    """Ten vectors with the given 45 cosines: rows of a square root of their matrix."""
    matrix = np.eye(10)
    matrix[np.triu_indices(10, 1)] = np.concatenate(cosines)
    values, vectors = np.linalg.eigh(matrix + np.triu(matrix, 1).T)
    assert values.min() > 0
    return 10 * vectors * np.sqrt(values)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """`check FILE` loads this stub, whatever is in the file."""
    from impart_utils import clip_model

    stub = Stub(vectors_with(clip_checks.TEXT_COSINES))
    stub.loads, stub.file = [], tmp_path / "file.pt"
    stub.file.write_bytes(b"x")
    monkeypatch.setattr(clip_model, "load_clip",
                        lambda name, **options: stub.loads.append((name, options)) or stub)
    return stub


def checked(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "check", *arguments)
    return end.value.code, capsys.readouterr().out


def test_check_prints_the_largest_difference_and_ends_with_1_on_failure(stub, monkeypatch, capsys):
    code, printed = checked(monkeypatch, capsys, stub.file)
    assert code == 0
    assert printed.startswith("unverified weights\nok: 45 cosines of ten texts: largest difference 0.0000 (")
    assert stub.loads == [("ViT-B/32", {"checkpoint": str(stub.file), "precision": "fp32",
                                        "allow_unverified": True})]
    stub.texts = np.random.default_rng(0).normal(size=(10, 512))
    code, printed = checked(monkeypatch, capsys, stub.file)
    assert code == 1 and "FAILED: 45 cosines of ten texts: largest difference 0." in printed


def test_check_encodes_cifars_first_ten_test_pictures(stub, monkeypatch, capsys, tmp_path):
    from impart_utils.sources import datasets

    asked, seen = [], []
    pictures = [f"picture {row}" for row in range(20)]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: asked.append((name, config.limit))
                        or type("Dataset", (), {"pictures": pictures}))
    stub.pictures = lambda given: seen.append(given) or vectors_with(clip_checks.CIFAR_COSINES)
    code, printed = checked(monkeypatch, capsys, stub.file, "--cifar10", tmp_path)
    assert code == 0 and "ok: 45 cosines of CIFAR-10's test pictures 0 to 9" in printed
    assert asked == [(f"cifar10:{tmp_path}", None)] and seen == [pictures[:10]]
    stub.pictures = lambda given: vectors_with(clip_checks.TEXT_COSINES)
    code, printed = checked(monkeypatch, capsys, stub.file, "--cifar10", tmp_path)
    assert code == 1 and "ok: 45 cosines of ten texts" in printed and "FAILED: 45 cosines of CIFAR" in printed


def test_check_wants_the_samples_with_their_pictures(stub, monkeypatch, capsys):
    for option in ("--samples", "--pictures"):
        with pytest.raises(SystemExit):
            command(monkeypatch, "check", stub.file, option, "x")
        assert "--samples and --pictures go together" in capsys.readouterr().err


def test_check_downloads_nothing(server, monkeypatch):
    with pytest.raises(MissingInput, match="are not on this machine"):
        command(monkeypatch, "check", "ViT-B/32")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at nowhere.pt"):
        command(monkeypatch, "check", "nowhere.pt")
    with pytest.raises(ValueError, match="Unknown CLIP 'ViT-B32'. Known: "):
        command(monkeypatch, "check", "ViT-B32")
    assert server.asked == []


def test_check_of_a_model_without_known_cosines_says_so(monkeypatch, capsys):
    command(monkeypatch, "check", "tiny")
    printed = capsys.readouterr().out
    assert "the kit's tiny CLIP (toy world)\nHash and shapes alone could be checked: no cosines" in printed


def test_check_of_openais_file_goes_all_the_way(server, published, monkeypatch, capsys, tmp_path):
    """The small CLIP fails ViT-B/32's cosines, and passes its own in their place."""
    (tmp_path / "mine.pt").write_bytes(published)
    with pytest.raises(ValueError, match="The weights are those of OpenAI ViT-B/32, but their features are "
                                         "not: FAILED: 45 cosines .*broken"):
        command(monkeypatch, "check", tmp_path / "mine.pt")
    model = build_model(read_checkpoint(tmp_path / "mine.pt", "ViT-B/32")[0], "")
    with torch.no_grad():
        features = model.encode_text(import_clip().tokenize(list(clip_checks.PROMPTS))).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    own = [row[number + 1:] for number, row in enumerate(features @ features.T)][:-1]
    monkeypatch.setattr(clip_checks, "TEXT_COSINES", own)
    code, printed = checked(monkeypatch, capsys, tmp_path / "mine.pt")
    assert code == 0 and printed.startswith("OpenAI ViT-B/32\nok: 45 cosines of ten texts")
