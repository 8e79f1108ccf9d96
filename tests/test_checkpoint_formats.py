"""Weights in files: each format and layout read to the last bit, each wrong file by its message."""

import json
import os
import struct

import pytest
import torch

from impart_utils.sources.checkpoint_formats import (
    copy_path,
    keep_copy,
    plain_gelu,
    read_copy,
    read_state_dict,
    tensors_hash,
)
from impart_utils.sources.clip_architectures import build_model

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit and pkg_resources announce their end


def save_safetensors(model, path):
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def assert_bits_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


# ---- reading ----

@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_plain_torch_files_and_safetensors(tmp_path, request, tower):
    model = request.getfixturevalue(tower)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    save_safetensors(model, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        assert_bits_equal(read_state_dict(tmp_path / name), model.state_dict())
        assert_bits_equal(read_state_dict(str(tmp_path / name)), model.state_dict())


def test_the_old_format_of_torch(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_bits_equal(read_state_dict(tmp_path / "old.pt"), resnet.state_dict())


def test_torchscript_as_openai_publishes_it(tmp_path, vit):
    import clip

    traced = torch.jit.trace(vit, (torch.randn(2, 3, 32, 32), clip.tokenize(["a", "b"])), check_trace=False)
    traced.save(tmp_path / "jit.pt")
    found = read_state_dict(tmp_path / "jit.pt")
    assert_bits_equal(found, vit.state_dict())
    assert not any(value.requires_grad for value in found.values())


def test_half_precision_stays_as_the_file_has_it(tmp_path, vit):
    half = {name: value.half() for name, value in vit.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    assert read_state_dict(tmp_path / "half.pt")["visual.proj"].dtype == torch.float16


def test_entries_that_are_no_tensors_are_left_out(tmp_path, vit):
    torch.save({**vit.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    assert_bits_equal(read_state_dict(tmp_path / "model.pt"), vit.state_dict())


# ---- files that are wrong ----

@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>404</html>", b"\n  <html>", b"<?xml version='1.0'?><Error/>"]
)
def test_an_error_page_saved_as_a_checkpoint(tmp_path, suffix, page):
    path = tmp_path / f"page{suffix}"
    path.write_bytes(page)
    with pytest.raises(
        ValueError, match=f"page{suffix} is an HTML or XML page, not a checkpoint.*Download it again"
    ):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_file_cut_short(tmp_path, resnet, suffix, share):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"short{suffix}"
    torch.save(resnet.state_dict(), whole) if suffix == ".pt" else save_safetensors(resnet, whole)
    content = whole.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(
        ValueError, match=f"short{suffix} can't be read as a checkpoint.*may be cut short.*download it again"
    ):
        read_state_dict(path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    import os
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"visual.conv1.weight": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "bomb.bin").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pt", "bomb.bin"):
        with pytest.raises(ValueError, match=f"{name} can't be read as a checkpoint"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_wrapped_in_a_training_checkpoint(tmp_path, vit, key):
    torch.save({"epoch": 3, key: vit.state_dict()}, tmp_path / "wrapped.pt")
    with pytest.raises(
        ValueError, match=rf"wrapped.pt wraps the weights under '{key}'.*torch.save\(checkpoint\['{key}'\]"
    ):
        read_state_dict(tmp_path / "wrapped.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"fc.weight": torch.ones(2)},
        {"module.visual.conv1.weight": torch.ones(2)},
        [torch.ones(2)],
        torch.ones(2),
        {},
    ],
)
def test_what_is_no_clip(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match="other.pt isn't a CLIP in a layout known here .*: it has no 'visual.conv1.weight'"
    ):
        read_state_dict(tmp_path / "other.pt")


def test_what_has_only_a_part_of_a_clip(tmp_path, vit):
    torch.save({"visual.conv1.weight": torch.ones(4, 3, 8, 8)}, tmp_path / "vision.pt")
    with pytest.raises(ValueError, match="vision.pt isn't a CLIP in a layout known.*no 'text_projection'"):
        read_state_dict(tmp_path / "vision.pt")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "nowhere.pt")


def test_a_git_lfs_pointer(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    with pytest.raises(ValueError, match="model.safetensors is a Git LFS pointer.*git lfs pull"):
        read_state_dict(tmp_path / "model.safetensors")


def test_the_content_decides_what_a_file_is_and_not_its_name(tmp_path, resnet):
    """Blobs of a hub's cache have no ending, and mirrors call safetensors .bin."""
    save_safetensors(resnet, tmp_path / "pytorch_model.bin")
    save_safetensors(resnet, tmp_path / "0a1b2c")
    torch.save(resnet.state_dict(), tmp_path / "3d4e5f")
    for name in ("pytorch_model.bin", "0a1b2c", "3d4e5f"):
        assert_bits_equal(read_state_dict(tmp_path / name), resnet.state_dict())


def test_a_header_whose_length_looks_like_the_start_of_a_page(tmp_path, resnet):
    """15392 is b" <\\0…" in a file's first bytes."""
    save_safetensors(resnet, tmp_path / "plain.safetensors")
    content = (tmp_path / "plain.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    padded = content[8:8 + length] + b" " * (15392 - length)
    (tmp_path / "odd.safetensors").write_bytes(struct.pack("<Q", 15392) + padded + content[8 + length:])
    assert (tmp_path / "odd.safetensors").read_bytes()[:2] == b" <"
    assert_bits_equal(read_state_dict(tmp_path / "odd.safetensors"), resnet.state_dict())


# ---- the names that mirrors give ----

def to_transformers(state_dict):
    """OpenAI's names to those of Transformers, written the other way round than the kit's conversion."""
    found = {"text_model.embeddings.position_ids": torch.arange(77)[None],  # in files of 2021 and 2022
             "vision_model.embeddings.position_ids": torch.arange(17)[None]}
    whole = {"positional_embedding": "text_model.embeddings.position_embedding.weight",
             "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
             "visual.class_embedding": "vision_model.embeddings.class_embedding",
             "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
             "logit_scale": "logit_scale"}
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm",
             "visual.ln_post": "vision_model.post_layernorm"}
    parts = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for name, value in state_dict.items():
        stem, _, kind = name.rpartition(".")
        if name in ("text_projection", "visual.proj"):
            theirs = "text_projection.weight" if name == "text_projection" else "visual_projection.weight"
            found[theirs] = value.T.contiguous()
        elif name in whole:
            found[whole[name]] = value
        elif stem in norms:
            found[f"{norms[stem]}.{kind}"] = value
        else:
            tower, _, place = name.partition("resblocks.")
            block, _, rest = place.partition(".")
            start = f"{'vision' if tower.startswith('visual') else 'text'}_model.encoder.layers.{block}"
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    found[f"{start}.self_attn.{letter}_proj.{kind}"] = third.contiguous()
            else:
                part, _, kind = rest.rpartition(".")
                found[f"{start}.{parts[part]}.{kind}"] = value
    return found


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_transformers_names_become_openais(tmp_path, vit, suffix, dtype):
    from safetensors.torch import save_file

    weights = {name: value.to(dtype) for name, value in vit.state_dict().items()}
    path = tmp_path / f"model{suffix}"
    (torch.save if suffix == ".bin" else save_file)(to_transformers(weights), path)
    assert_bits_equal(read_state_dict(path), weights)


def test_transformers_weights_give_the_originals_features(tmp_path, vit):
    import clip

    torch.save(to_transformers(vit.state_dict()), tmp_path / "pytorch_model.bin")
    model = build_model(read_state_dict(tmp_path / "pytorch_model.bin"), "file")
    with torch.no_grad():
        tokens, pictures = clip.tokenize(["a photo of a dog", "", "a " * 70]), torch.randn(2, 3, 32, 32)
        assert_close(model.encode_text(tokens), vit.encode_text(tokens))
        assert_close(model.encode_image(pictures), vit.encode_image(pictures))


@pytest.mark.parametrize(
    "lost", ["text_model.encoder.layers.1.self_attn.k_proj.bias", "visual_projection.weight"]
)
def test_transformers_weights_that_lack_a_part(tmp_path, vit, lost):
    weights = to_transformers(vit.state_dict())
    del weights[lost]
    torch.save(weights, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=f"model.bin has the names of Transformers, but lacks.*"
                                         f"{lost.split('.')[-2]}"):
        read_state_dict(tmp_path / "model.bin")


@pytest.mark.parametrize("start", ["text_model.", "vision_model."])
def test_one_tower_alone_is_refused(tmp_path, vit, start):
    """CLIPTextModel and CLIPVisionModel, as diffusion models bring them."""
    weights = {name: value for name, value in to_transformers(vit.state_dict()).items()
               if name.startswith(start)}
    torch.save(weights, tmp_path / "half.bin")
    with pytest.raises(ValueError, match="half.bin holds one tower of a CLIP without the other.*whole model"):
        read_state_dict(tmp_path / "half.bin")


def test_timms_picture_tower_is_refused(tmp_path):
    torch.save({"cls_token": torch.ones(1), "patch_embed.proj.weight": torch.ones(1)}, tmp_path / "timm.bin")
    with pytest.raises(ValueError, match="timm.bin holds one tower.*open_clip_model.safetensors"):
        read_state_dict(tmp_path / "timm.bin")


def test_a_mask_that_was_saved_with_the_weights_is_left_out(tmp_path, vit):
    torch.save({**vit.state_dict(), "attn_mask": torch.ones(77, 77)}, tmp_path / "model.bin")
    assert_bits_equal(read_state_dict(tmp_path / "model.bin"), vit.state_dict())


def as_files(model, folder):
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    save_safetensors(model, folder / "open_clip_model.safetensors")
    return [folder / "open_clip_pytorch_model.bin", folder / "open_clip_model.safetensors"]


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_open_clips_own_model_gives_the_same_features(tmp_path, kind):
    import clip

    open_clip = pytest.importorskip("open_clip", reason="the package open_clip isn't here")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = getattr(open_clip, kind)(
            64, {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64},
            {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
            quick_gelu=True).eval()
    assert ("text.ln_final.weight" in theirs.state_dict()) == (kind == "CustomTextCLIP")
    tokens, pictures = clip.tokenize(["a photo of a dog", "", "a " * 70]), torch.randn(2, 3, 32, 32)
    for path in as_files(theirs, tmp_path):
        ours = build_model(read_state_dict(path), path)
        with torch.no_grad():
            assert_close(ours.encode_text(tokens), theirs.encode_text(tokens))
            assert_close(ours.encode_image(pictures), theirs.encode_image(pictures))


def test_transformers_own_model_gives_the_same_features(tmp_path):
    import clip

    transformers = pytest.importorskip("transformers", reason="the package transformers isn't here")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = transformers.CLIPConfig(text_config=sizes | {"eos_token_id": 2}, projection_dim=32,
                                     vision_config=sizes | {"image_size": 32, "patch_size": 8})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = build_model(read_state_dict(tmp_path / "model.safetensors"), tmp_path)
    assert plain_gelu(tmp_path / "model.safetensors") is None
    tokens, pictures = clip.tokenize(["a photo of a dog", "", "a " * 70]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        texts = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)
        images = theirs.visual_projection(theirs.vision_model(pixel_values=pictures).pooler_output)
        assert_close(ours.encode_text(tokens), texts)
        assert_close(ours.encode_image(pictures), images)


# ---- what a file says of itself ----

OPEN_CLIP = {"embed_dim": 512, "vision_cfg": {"width": 768, "patch_size": 32}, "text_cfg": {"width": 512}}


@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        # openai/clip-vit-base-patch32 as saved today, and as it was (the default is quick_gelu)
        ("config.json", {"model_type": "clip", "text_config": {"hidden_act": "quick_gelu"},
                         "vision_config": {"hidden_act": "quick_gelu"}}, None),
        ("config.json", {"model_type": "clip", "text_config": {}, "text_config_dict": None}, None),
        # laion/CLIP-ViT-B-32-laion2B-s34B-b79K
        ("config.json", {"model_type": "clip", "text_config": {"hidden_act": "gelu"},
                         "vision_config": {"hidden_act": "gelu"}}, 'says "hidden_act": "gelu"'),
        ("config.json", {"vision_config": {"hidden_act": "gelu_new"}}, 'says "hidden_act": "gelu_new"'),
        ("config.json", {"model_type": "clip_text_model", "hidden_act": "gelu"}, 'says "hidden_act": "gelu"'),
        ("config.json", {"model_type": "bert", "hidden_act": "gelu"}, None),  # another model's
        ("config.json", {"architecture": "vit_base_patch32_clip_224", "num_classes": 512}, None),  # timm's
        ("config.json", [1, 2], None),
        # timm/vit_base_patch32_clip_224.openai; then laion's; then one's own
        ("open_clip_config.json", {"model_cfg": {**OPEN_CLIP, "quick_gelu": True}}, None),
        ("open_clip_config.json", {"model_cfg": OPEN_CLIP, "preprocess_cfg": {}},
         'has no "quick_gelu": true'),
        ("open_clip_config.json", {"model_cfg": {**OPEN_CLIP, "quick_gelu": False}},
         'says "quick_gelu": false'),
        ("open_clip_config.json", OPEN_CLIP, 'has no "quick_gelu": true'),
    ],
)
def test_a_config_beside_the_file_tells_the_activation(tmp_path, file, config, said):
    (tmp_path / file).write_text(json.dumps(config))
    found = plain_gelu(tmp_path / "model.bin")
    assert found == (said and f"{file} beside it {said}")


def test_a_config_that_cannot_be_read_says_nothing(tmp_path):
    (tmp_path / "config.json").write_text("{not json")
    (tmp_path / "open_clip_config.json").mkdir()
    assert plain_gelu(tmp_path / "model.bin") is None


@pytest.mark.parametrize(
    ("header", "said"),
    [({"format": "pt"}, None), (None, None), ({"hidden_act": "gelu"}, 'says "hidden_act": "gelu"'),
     ({"quick_gelu": "false"}, 'says "quick_gelu": "false"'), ({"quick_gelu": "True"}, None)],
)
def test_the_header_of_safetensors_tells_it_too(tmp_path, header, said):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors", metadata=header)
    assert plain_gelu(tmp_path / "model.safetensors") == (said and f"its header {said}")


# ---- the copy ----

SHA256 = "ab" * 32


@pytest.fixture
def kept(tmp_path, vit):
    """(path of a checkpoint, its weights); a copy lies beside it."""
    path = tmp_path / "ViT-B-32.pt"
    weights = {name: value.half() if value.ndim > 1 else value for name, value in vit.state_dict().items()}
    weights["input_resolution"] = torch.tensor(32)  # as in OpenAI's files
    torch.save(weights, path)
    keep_copy(weights, path, SHA256)
    return path, weights


def test_a_copy_holds_the_same_bits_and_leaves_nothing_else(kept):
    path, weights = kept
    assert_bits_equal(read_copy(path, SHA256), weights)
    assert copy_path(path).name == "ViT-B-32.pt.safetensors"
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, copy_path(path).name]


def test_there_is_none_at_first(tmp_path):
    (tmp_path / "new.pt").write_bytes(b"x")
    assert read_copy(tmp_path / "new.pt", SHA256) is None


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>"),
        lambda path: torch.save({"x": torch.ones(1)}, path),
    ],
)
def test_a_broken_copy_is_not_trusted(kept, damage):
    path, _ = kept
    damage(copy_path(path))
    assert read_copy(path, SHA256) is None


def test_another_files_copy_is_not_trusted(kept, tmp_path, vit):
    path, _ = kept
    assert read_copy(path, "cd" * 32) is None  # a copy of a file with another hash
    save_safetensors(vit, copy_path(path))  # weights of whatever origin under the copy's name
    assert read_copy(path, SHA256) is None


def test_a_header_that_names_the_wrong_tensors_is_not_trusted(kept, vit):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, weights = kept
    with safe_open(copy_path(path), "pt") as file:
        header = file.metadata()
    save_file({**weights, "logit_scale": torch.tensor(1.0)}, copy_path(path), metadata=header)
    assert read_copy(path, SHA256) is None
    save_file(weights, copy_path(path), metadata=header)
    assert_bits_equal(read_copy(path, SHA256), weights)


def test_a_checkpoint_that_was_replaced_ends_its_copy(kept):
    path, weights = kept
    stamp = path.stat()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert read_copy(path, SHA256) is None
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert read_copy(path, SHA256) is not None
    with open(path, "ab") as file:
        file.write(b"x")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert read_copy(path, SHA256) is None


def test_where_no_copy_can_be_written_there_is_none(tmp_path, vit):
    (tmp_path / "a.pt").write_bytes(b"x")
    copy_path(tmp_path / "a.pt").mkdir()  # nothing can take this name
    keep_copy(vit.state_dict(), tmp_path / "a.pt", SHA256)
    assert read_copy(tmp_path / "a.pt", SHA256) is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.pt", "a.pt.safetensors"]


def test_the_hash_of_tensors_sees_each_bit_name_type_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    others = [
        {"a": torch.zeros(3, 2), "b": weights["b"]}, {"a": torch.zeros(2, 3).half(), "b": weights["b"]},
        {"c": weights["a"], "b": weights["b"]}, {"a": -torch.zeros(2, 3), "b": weights["b"]},
        {"a": weights["a"], "b": torch.tensor(2)}, {"a": weights["a"]},
    ]
    assert len({tensors_hash(each) for each in [weights, *others]}) == 7
    assert tensors_hash(dict(reversed(weights.items()))) == tensors_hash(weights)
    turned = torch.arange(6.0).reshape(2, 3)
    assert tensors_hash({"a": turned.T.contiguous().T}) == tensors_hash({"a": turned})  # whatever its strides
    assert tensors_hash({"a": torch.ones(2, dtype=torch.bfloat16)})  # a type that numpy doesn't have
