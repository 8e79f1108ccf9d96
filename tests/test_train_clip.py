"""The tiny CLIP: OpenAI's own architecture and format, made by the recipe that the code states."""

import math
from dataclasses import replace

import clip
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from impart_utils.toy_world import scenes as world
from impart_utils.toy_world import train_clip
from impart_utils.toy_world.train_clip import LIVE, Recipe, caption_loss, tiny_clip_path, train

SETS = ("toy10", "toy100", "toy101")
SMALL = replace(Recipe(), steps=3, batch=16)


@pytest.fixture(scope="module")
def shipped():
    return train_clip.load_weights()


@pytest.fixture(scope="module")
def pictures():
    return world.pictures([pair.scene for pair in world.pairs(40)])


# What a step is made of

def test_to_input_is_clips_own_preprocessing(pictures):
    from PIL import Image

    preprocess = clip.clip._transform(32)
    slow = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures])
    torch.testing.assert_close(train_clip.to_input(pictures), slow, rtol=0, atol=0, check_stride=False)


def test_learning_rate_rises_and_falls():
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    assert train_clip.learning_rate(recipe, 0) == pytest.approx(0.1)
    assert train_clip.learning_rate(recipe, 9) == train_clip.learning_rate(recipe, 10) == 1.0
    assert train_clip.learning_rate(recipe, 55) == pytest.approx(0.5)  # half way down the cosine
    assert train_clip.learning_rate(recipe, 99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_moved_against_a_slow_loop(pictures):
    moved = train_clip.moved(pictures, 2, np.random.default_rng(4))
    offsets = np.random.default_rng(4).integers(-2, 3, size=(2, len(pictures), 1))[..., 0]
    for picture, result, down, right in zip(pictures, moved, *offsets, strict=True):
        for row in range(32):
            for column in range(32):
                source = picture[min(31, max(0, row + down)), min(31, max(0, column + right))]
                assert (result[row, column] == source).all()
    np.testing.assert_array_equal(train_clip.moved(pictures, 0, np.random.default_rng(4)), pictures)


def features_of(model, pictures, text, tokens):
    """Unit features the plain way: all 77 tokens, each picture with its own text."""
    images = F.normalize(model.encode_image(train_clip.to_input(pictures)), dim=1)
    texts = F.normalize(model.encode_text(tokens[text]), dim=1)
    return images, texts, model.logit_scale.exp()


def test_loss_is_clips_own_where_all_captions_differ(shipped, pictures):
    tokens = clip.tokenize(["a red boat", "a star in the snow", "our holiday", "a cat"])
    text = np.array([2, 0, 3, 1])
    images, texts, scale = features_of(shipped, pictures[:4], text, tokens)
    logits = scale * images @ texts.T
    own = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(caption_loss(shipped, train_clip.to_input(pictures[:4]), text, tokens), own)


def test_loss_counts_equal_captions_as_one_text(shipped, pictures):
    tokens = clip.tokenize(["a red boat", "a star", "our holiday"])
    text = [1, 0, 1, 1, 2]
    images, texts, scale = features_of(shipped, pictures[:5], text, tokens)
    different = texts[[1, 0, 4]]  # texts 0, 1, 2 once each
    image_loss = text_loss = 0.0
    for picture, own in enumerate(text):  # each picture must find its text
        image_loss -= F.log_softmax(scale * different @ images[picture], dim=0)[own] / 5
    for row in range(3):                  # each text its pictures, evenly
        bearers = [picture for picture, own in enumerate(text) if own == row]
        text_loss -= F.log_softmax(scale * images @ different[row], dim=0)[bearers].mean() / 3
    loss = caption_loss(shipped, train_clip.to_input(pictures[:5]), np.array(text), tokens)
    torch.testing.assert_close(loss, (image_loss + text_loss) / 2)


def test_training_captions_belong_to_their_pictures():
    recipe = replace(Recipe(), pictures=50)
    pictures, tokens, texts = train_clip.training_data(recipe, seed=2)
    scenes, captions = train_clip.training_captions(recipe, seed=2)
    assert pictures.shape == (50, 32, 32, 3) and texts.shape == (50, recipe.captions)
    np.testing.assert_array_equal(pictures[7], np.asarray(world.draw(scenes[7])))
    for own, rows in zip(captions, texts, strict=True):
        assert torch.equal(clip.tokenize(own), tokens[rows])
    assert len({caption for own in captions for caption in own}) == len(tokens)


# Training

def test_the_same_seed_gives_the_same_weights():
    runs = [train(SMALL, seed=seed, probe_every=0)[0].state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["visual.conv1.weight"], runs[2]["visual.conv1.weight"])


def test_training_leaves_the_random_state_of_others_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    train(SMALL, probe_every=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_history_and_progress():
    seen = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    model, history = train(SMALL, steps=5, probe_every=2, progress=progress)
    assert seen == [0, 1, 2, 3, 4] and not model.training
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["views"] for row in history] == [16, 32, 48, 64, 80]
    assert [row["accuracy"] is not None for row in history] == [True, False, True, False, True]
    assert all(np.isfinite(row["loss"]) for row in history)
    assert not any(value.requires_grad for value in model.parameters())
    assert model.visual.conv1.weight.is_contiguous()


@pytest.mark.parametrize("steps", [0, -2])
def test_no_steps(steps):
    with pytest.raises(ValueError, match=f"Expected steps >= 1, got {steps}."):
        train(SMALL, steps=steps)


@pytest.mark.slow
def test_a_short_run_beats_chance_by_20_points():
    _, history = train_clip.train_live(seed=0)
    chance = 1 / len(world.SHAPES)
    assert history[0]["accuracy"] < chance + 0.05  # from chance
    assert history[-1]["accuracy"] > chance + 0.20  # upwards
    assert len(history) == LIVE.steps


# The shipped weights

def test_metadata_are_those_of_the_code():
    metadata = train_clip.read_metadata()
    assert metadata["recipe_hash"] == train_clip.recipe_hash(), "the recipe changed: make the weights anew"
    assert metadata["world_version"] == str(world.WORLD_VERSION)
    assert metadata["steps"] == str(Recipe.steps) and metadata["seed"].isdigit()


@pytest.mark.parametrize("change", [{"steps": 501}, {"learning_rate": 1e-3}, {"people": 0.2},
                                    {"vision_width": 32},
                                    {"rates": {"full": 1.0, "partial": 0.0, "empty": 0.0, "wrong": 0.0}}])
def test_each_constant_of_the_recipe_is_in_its_hash(change):
    assert train_clip.recipe_hash(replace(Recipe(), **change)) != train_clip.recipe_hash()


def test_the_worlds_version_is_in_the_hash(monkeypatch):
    before = train_clip.recipe_hash()
    monkeypatch.setattr(world, "WORLD_VERSION", world.WORLD_VERSION + 1)
    assert train_clip.recipe_hash() != before


def test_size_precision_and_unused_tokens():
    from safetensors.torch import load_file

    assert tiny_clip_path().stat().st_size <= 10_000_000
    state = load_file(tiny_clip_path())
    assert {value.dtype for value in state.values()} <= {torch.float16, torch.int64}
    used = state["token_embedding.weight"].abs().sum(dim=1) > 0
    known = clip.tokenize(["a photo of a red boat in the snow", "ada", "ben", "mia"])
    assert used[known[known > 0].unique()].all() and used.sum() < 200
    assert not used[clip.tokenize(["leo", "zoe", "tom"])[:, 1]].any()  # never named in a caption


def test_class_names_are_in_the_vocabulary(shipped):
    for name in SETS:
        tokens = clip.tokenize([f"a photo of a {word}" for word in world.CLASS_NAMES[name]])
        assert (shipped.token_embedding(tokens[tokens > 0].unique()).abs().sum(dim=1) > 0).all()


def test_weights_go_through_build_model_and_clip_load(shipped, pictures, tmp_path):
    from safetensors.torch import load_file

    state = load_file(tiny_clip_path())
    built = clip.model.build_model(dict(state)).float()
    torch.save(dict(state), tmp_path / "tiny.pt")
    loaded, preprocess = clip.load(str(tmp_path / "tiny.pt"), device="cpu")
    tokens, images = clip.tokenize(["a photo of a red boat"]), train_clip.to_input(pictures)
    assert preprocess.transforms[0].size == 32
    with torch.inference_mode():
        for other in (built, loaded):
            assert torch.equal(other.encode_image(images), shipped.encode_image(images))
            assert torch.equal(other.encode_text(tokens), shipped.encode_text(tokens))


def test_heads_follow_from_widths(shipped):
    """clip.model.build_model derives them; other ones would reload as another model."""
    fresh = train_clip.make_model(Recipe())
    assert fresh.transformer.resblocks[0].attn.num_heads == Recipe.text_width // 64 == 1
    assert fresh.visual.attnpool.num_heads == Recipe.vision_width * 32 // 64 == 8
    assert shipped.visual.attnpool.num_heads == 8
    assert {name: value.shape for name, value in fresh.state_dict().items()} \
        == {name: value.shape for name, value in shipped.state_dict().items()}


@pytest.mark.parametrize("name", SETS)
def test_zero_shot_accuracy_leaves_room_both_ways(shipped, name):
    accuracy = train_clip.zero_shot_accuracy(shipped, name, limit=1500)
    assert 0.60 <= accuracy <= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_zero_shot_accuracy_of_the_whole_sets(shipped, name):
    accuracy = train_clip.zero_shot_accuracy(shipped, name)
    assert 0.60 <= accuracy <= 0.90


def test_accuracy_is_that_of_the_kits_own_path(shipped):
    """The fast path from uint8 arrays and the way the notebooks go give the same predictions."""
    from PIL import Image

    from impart_utils.clip_model import load_clip
    from impart_utils.zeroshot import accuracy, class_features, predict

    test, model = world.test_set("toy10"), load_clip("tiny", device="cpu")
    pictures = [Image.fromarray(picture) for picture in world.pictures(test.scenes[:300])]
    weights = class_features(model.encode_texts, test.class_names)
    slow = accuracy(predict(model.encode_images(pictures), weights), test.labels[:300])
    assert train_clip.zero_shot_accuracy(shipped, "toy10", limit=300) == pytest.approx(slow, abs=1 / 300)


def test_search_by_name_works_for_the_named_alone(shipped):
    """Half of the films' characters are named in training captions, half only described."""
    names = list(world.CHARACTERS)
    scenes = [world.Scene(name, world.CHARACTERS[name].hat_color, place, "flat", 9000 + row)
              for row, name in enumerate(names) for place in world.SURROUNDINGS]
    features, shown = train_clip.encode_pictures(shipped, world.pictures(scenes)), np.repeat(names, 8)

    def precision(prompt):
        with torch.inference_mode():
            query = F.normalize(shipped.encode_text(clip.tokenize([prompt])), dim=1).numpy()[0]
        return {name: float(np.mean(shown[np.argsort(-features @ query)[:8]] == name)) for name in names}

    for name, character in world.CHARACTERS.items():
        by_name = precision(f"a photo of {name}")[name]
        by_look = precision(f"a photo of a {character.look}")[name]
        assert by_look > 0.75
        assert by_name > 0.75 if character.named else by_name < 0.5, (name, by_name)


@pytest.mark.slow
def test_the_command_writes_weights_that_say_how_they_were_made(tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        train_clip.main(["--seed", "3", "--steps", "2", "--out", str(tmp_path / "clip.safetensors")])
    finally:
        torch.set_num_threads(threads)
    metadata = train_clip.read_metadata(tmp_path / "clip.safetensors")
    assert metadata["seed"] == "3" and metadata["steps"] == "2"
    assert metadata["recipe_hash"] != train_clip.recipe_hash()  # not the shipped recipe
    assert train_clip.load_weights(tmp_path / "clip.safetensors").visual.input_resolution == 32
    assert "zero-shot accuracy on toy101: " in capsys.readouterr().out
