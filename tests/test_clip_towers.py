"""CLIP's towers with less work: the same features as OpenAI's own forward pass, in each precision."""

import copy

import clip as openai
import clip.model
import pytest
import torch
from test_clip_model import TEXTS, random_weights
from torch.nn.functional import cosine_similarity

from impart_utils.clip_towers import encode_pixels, encode_tokens, lower_precision

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    return random_weights("vit")


def some_pixels(count):
    return torch.randn((count, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def some_tokens():
    tokens = openai.tokenize(TEXTS, truncate=True)  # (9, 77)
    lengths = tokens.argmax(dim=1) + 1
    assert {2, 3, 77} <= set(lengths.tolist())  # empty, one word, full
    return tokens, lengths


def test_pictures_equal_openais_tower(model):
    pixels = some_pixels(5)
    expected = model.encode_image(pixels).detach()
    torch.testing.assert_close(encode_pixels(model, pixels), expected, atol=1e-5, rtol=0)
    assert (expected - expected.mean(0)).norm(dim=1).min() > 0.1  # the pictures do differ


def test_a_resnet_takes_clips_own_way():
    model, pixels = random_weights("resnet"), some_pixels(5)
    with torch.inference_mode():
        assert torch.equal(encode_pixels(model, pixels), model.encode_image(pixels))


def test_texts_equal_openais_tower(model):
    tokens, _ = some_tokens()
    torch.testing.assert_close(encode_tokens(model, tokens), model.encode_text(tokens), atol=1e-5, rtol=0)


def test_texts_cut_at_the_end_token_give_the_same(model):
    tokens, lengths = some_tokens()
    whole = model.encode_text(tokens).detach()
    for row, length in enumerate(lengths):
        alone = encode_tokens(model, tokens[row:row + 1, :length])
        torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=0)


def test_what_stands_behind_the_end_token_has_no_effect(model):
    tokens, lengths = some_tokens()
    for row, length in enumerate(lengths):
        tokens[row, length:] = torch.arange(77 - int(length)) + 1000
    torch.testing.assert_close(encode_tokens(model, tokens), model.encode_text(some_tokens()[0]), atol=1e-5,
                               rtol=0)
    tokens[1, 0] += 1  # what stands before it has one
    assert not torch.allclose(encode_tokens(model, tokens)[1], model.encode_text(some_tokens()[0])[1],
                              atol=1e-3)


def test_a_tower_of_one_block(model):
    short = copy.deepcopy(model)
    for tower in (short.visual.transformer, short.transformer):
        tower.resblocks = tower.resblocks[:1]
    pixels, (tokens, _) = some_pixels(3), some_tokens()
    torch.testing.assert_close(encode_pixels(short, pixels), short.encode_image(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(encode_tokens(short, tokens), short.encode_text(tokens), atol=1e-5, rtol=0)


def test_nothing_is_changed_by_encoding(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pixels, (tokens, _) = some_pixels(2), some_tokens()
    given = pixels.clone(), tokens.clone()
    first = encode_pixels(model, pixels), encode_tokens(model, tokens)
    assert torch.equal(pixels, given[0]) and torch.equal(tokens, given[1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(encode_pixels(model, pixels), first[0])
    assert torch.equal(encode_tokens(model, tokens), first[1])


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_half_precision_is_that_of_openais_own_conversion(kind):
    ours, theirs = random_weights(kind), random_weights(kind)
    lower_precision(ours, torch.float16)
    openai.model.convert_weights(theirs)
    for name, value in theirs.state_dict().items():
        found = ours.state_dict()[name]
        assert found.dtype == value.dtype and torch.equal(found, value), name
    assert torch.float16 in {value.dtype for value in ours.state_dict().values()}


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_come_close(kind, dtype):
    exact = random_weights(kind)
    rough = copy.deepcopy(exact)
    lower_precision(rough, dtype)
    pixels, (tokens, _) = some_pixels(6), some_tokens()
    for encode, given in ((encode_pixels, pixels), (encode_tokens, tokens)):
        features, expected = encode(rough, given), encode(exact, given)
        assert features.dtype == dtype and not torch.equal(features.float(), expected)
        assert cosine_similarity(features.float(), expected).min() > 0.999
