"""What a name promises, and building a model: against clip's own class and open_clip's configurations."""

import json
from pathlib import Path

import pytest
import torch

from impart_utils.sources.clip_architectures import (
    ARCHITECTURES,
    TINY,
    Architecture,
    architecture,
    build_model,
    check_architecture,
    import_clip,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # pkg_resources announces its end

SIZES = {  # clip.model.CLIP's arguments
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
    TINY: (64, 32, (1, 1, 1, 1), 16, None, 77, 49408, 64, 1, 2),
}


def random_model(kind, seed=0):
    from clip.model import CLIP

    sizes = SIZES[TINY] if kind == "resnet" else (32, 32, 2, 64, 8, 77, 49408, 64, 1, 2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(*sizes).float().eval()


def test_every_name_that_clip_knows_promises_something():
    assert set(ARCHITECTURES) == {*import_clip().available_models(), TINY}
    assert len(set(ARCHITECTURES.values())) == len(ARCHITECTURES)  # no two names for the same shapes


@pytest.mark.parametrize("name", SIZES)
def test_architecture_is_read_off_the_shapes(name):
    from clip.model import CLIP

    with torch.device("meta"):
        state_dict = CLIP(*SIZES[name]).state_dict()
    assert architecture(state_dict) == ARCHITECTURES[name]


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {TINY}))
def test_the_table_is_that_of_open_clip(name):
    open_clip = pytest.importorskip("open_clip", reason="the package open_clip isn't here")
    theirs = name.replace("@336px", "-336").replace("/", "-")
    folder = Path(open_clip.__file__).parent / "model_configs"
    config = json.loads((folder / f"{theirs}-quickgelu.json").read_text())
    picture, text = config["vision_cfg"], config["text_cfg"]
    layers = picture["layers"]
    assert ARCHITECTURES[name] == Architecture(
        picture["width"], layers if isinstance(layers, int) else sum(layers), picture["patch_size"],
        picture["image_size"], text["width"], text["layers"], config["embed_dim"], text["context_length"],
        text["vocab_size"])


def test_a_tokenizer_of_another_size_is_another_architecture():
    """laion's multilingual models and CLIPA have the same picture tower."""
    state_dict = random_model("resnet").state_dict()
    state_dict["token_embedding.weight"] = torch.empty(32000, 64, device="meta")
    state_dict["positional_embedding"] = torch.empty(32, 64, device="meta")
    with pytest.raises(ValueError, match="a.pt isn't a tiny: context is 32, expected 77, vocabulary is "
                                         "32000, expected 49408. Known: ViT-B/32, .*tiny"):
        check_architecture(state_dict, "a.pt", TINY)


@pytest.mark.parametrize("lost", ["visual.attnpool.positional_embedding", "token_embedding.weight"])
def test_weights_that_lack_what_each_clip_has(lost):
    state_dict = random_model("resnet").state_dict()
    del state_dict[lost]
    with pytest.raises(ValueError, match=f"a.pt isn't a whole CLIP, something is missing.*{lost}"):
        check_architecture(state_dict, "a.pt", TINY)
    state_dict[lost] = torch.ones(())
    with pytest.raises(ValueError, match="a.pt isn't a whole CLIP, something is missing or misshapen"):
        check_architecture(state_dict, "a.pt", TINY)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_built_model_is_clips_own_with_the_files_bits(kind):
    original = random_model(kind)
    given = {**original.state_dict(), "input_resolution": torch.tensor(32)}  # as in OpenAI's files
    model = build_model(given, "a.pt")
    assert "input_resolution" in given  # clip's function takes entries out of the dict it gets
    assert type(model) is type(original) and not model.training
    assert set(model.state_dict()) == set(original.state_dict())
    for name, value in original.state_dict().items():
        found = model.state_dict()[name]
        assert found.dtype == value.dtype and torch.equal(found, value), name  # not rounded to half
        assert found.data_ptr() != value.data_ptr()  # the file may change on disk
    assert all(parameter.requires_grad for parameter in model.parameters())
    tokens, pictures = import_clip().tokenize(["a dog", "", "a " * 70]), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(model(pictures, tokens), original(pictures, tokens), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_half_precision_becomes_single_without_loss():
    half = {name: value.half() if value.is_floating_point() else value
            for name, value in random_model("resnet").state_dict().items()}
    model = build_model(half, "a.pt")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, half[name].to(value.dtype)) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("change", "said"), [
    (lambda weights: weights.pop("visual.ln_post.weight"), "visual.ln_post.weight"),
    (lambda weights: weights.update(logit_bias=torch.ones(())), "logit_bias"),  # SigLIP's
    (lambda weights: weights.update({"visual.proj": torch.ones(64, 31)}), "visual.proj"),
])
def test_a_part_missing_too_many_or_misshapen_is_named(change, said):
    weights = random_model("vit").state_dict()
    change(weights)
    with pytest.raises(ValueError, match=f"a.pt can't be made into a CLIP: [^$]*{said}"):
        build_model(weights, "a.pt")
