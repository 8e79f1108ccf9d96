"""RAM against a slow form written from its formulas, its invariants, gradients and messages."""

import itertools
import math

import pytest
import torch

from impart_utils.ram import RAM, folded_attention, plain_attention
from impart_utils.ram_variants import CONFIGURATIONS, configuration, parts

CHOICES = list(itertools.product(["none", "branch", "sum"], ["relu", "none"], [None, "zero"]))


def inputs(b=3, k=4, d=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=dtype) * 3 for shape in ((b, d), (b, k, d), (b, k, d))
    ]


def make(dim=8, seed=0, **options):
    """A RAM in double precision whose biases and gates aren't the zeros that torch starts with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ram = RAM(dim, **{"heads": 2, **options}).double()
        for name, value in ram.named_parameters():
            if "bias" in name or name == "gate":
                torch.nn.init.normal_(value, std=0.5)
    return ram


def slow_attention(query, keys, values, weights, prefix, heads, attention="learned"):
    """softmax(q k / sqrt(d / heads)) v for one query, head by head and key by key, from the state dict."""
    d = len(query)
    W_q, W_k, W_v = weights[prefix + "in_proj_weight"].split(d)
    b_q, b_k, b_v = weights[prefix + "in_proj_bias"].split(d)
    q, width, mixed = W_q @ query + b_q, d // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = [float((q[part] * (W_k @ key + b_k)[part]).sum()) / math.sqrt(width) for key in keys]
        total = sum(math.exp(score - max(scores)) for score in scores)
        shares = [math.exp(score - max(scores)) / total for score in scores]
        shares = [1 / len(keys)] * len(keys) if attention == "mean" else shares
        mixed.append(
            sum(share * (W_v @ value + b_v)[part] for share, value in zip(shares, values, strict=True))
        )
    return weights[prefix + "out_proj.weight"] @ torch.cat(mixed) + weights[prefix + "out_proj.bias"]


def slow_ram(ram, image, r_img, r_txt, *, heads, normalize, between, gate, attention="learned", layers=None):
    """The formulas of RAM's docstring for one picture after the other."""
    weights, layers, result = ram.state_dict(), len(ram.text_attention), []
    for v, images, texts in zip(image, r_img, r_txt, strict=True):
        e = v
        for layer in range(layers):
            h = e.clamp(min=0) if layer > 0 and between == "relu" else e
            text = slow_attention(h, images, texts, weights, f"text_attention.{layer}.", heads, attention)
            picture = slow_attention(h, texts, images, weights, f"image_attention.{layer}.", heads, attention)
            if normalize == "branch":
                added = text / text.norm() + picture / picture.norm()
            else:
                added = text + picture
                added = added / added.norm() if normalize == "sum" else added
            e = h + (weights["gate"][layer] * added if gate == "zero" else added)
        result.append(e)
    return torch.stack(result)


@pytest.mark.parametrize("normalize, between, gate", CHOICES)
@pytest.mark.parametrize("attend", [None, folded_attention, plain_attention])
def test_equals_the_slow_form(normalize, between, gate, attend):
    options = {"normalize": normalize, "between": between, "gate": gate}
    ram, blocks = make(heads=4, layers=3, **options), inputs()
    with torch.no_grad():
        result = ram(*blocks, attend=attend)
        expected = slow_ram(ram, *blocks, heads=4, **options)
    assert result.shape == (3, 8)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("attend", [None, plain_attention])
def test_every_named_configuration_equals_the_slow_form(name, attend):
    options = {**parts(configuration(name))[0], "heads": 4}
    ram, blocks = make(**options), inputs()
    with torch.no_grad():
        result, expected = ram(*blocks, attend=attend), slow_ram(ram, *blocks, **options)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_gradients_of_every_named_configuration_are_right(name):
    ram = make(dim=4, **{**parts(configuration(name))[0], "heads": 2})
    blocks = [block.requires_grad_() for block in inputs(b=2, k=2, d=4)]
    assert torch.autograd.gradcheck(ram, blocks)


def test_folded_and_plain_attention_agree_at_the_papers_size():
    ram, blocks = RAM(512), inputs(b=20, k=8, d=512, dtype=torch.float32)
    with torch.no_grad():
        folded, plain = ram(*blocks), ram(*blocks, attend=plain_attention)
    assert (folded - plain).abs().max() < 1e-5 * plain.abs().max()


def test_folded_and_plain_attention_have_the_same_gradients():
    ram = make(heads=4)
    found = []
    for attend in (folded_attention, plain_attention):
        blocks = [block.requires_grad_() for block in inputs()]
        ram.zero_grad()
        ram(*blocks, attend=attend).pow(3).sum().backward()
        found.append([block.grad for block in blocks] + [value.grad.clone() for value in ram.parameters()])
    for folded, plain in zip(*found, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-8, rtol=1e-6)


def test_the_choices_differ_from_one_another():
    results = []
    for normalize, between, gate in CHOICES:
        with torch.no_grad():
            results.append(make(normalize=normalize, between=between, gate=gate)(*inputs()))
    for first, second in itertools.combinations(results, 2):
        assert not torch.allclose(first, second, atol=1e-3)


def test_the_branches_cross():
    """One branch asks images for texts, the other texts for images: swapped, it is another RAM."""
    ram = make(layers=1)
    image, r_img, r_txt = inputs()
    with torch.no_grad():
        assert not torch.allclose(ram(image, r_img, r_txt), ram(image, r_txt, r_img), atol=1e-3)
        # with both attentions' weights swapped too, it is the same sum again
        crossed = make(layers=1)
        crossed.text_attention.load_state_dict(ram.image_attention.state_dict())
        crossed.image_attention.load_state_dict(ram.text_attention.state_dict())
        torch.testing.assert_close(crossed(image, r_txt, r_img), ram(image, r_img, r_txt))


def test_parameters_as_in_the_papers_code():
    count = sum(value.numel() for value in RAM(512).parameters())
    assert count == 4_202_496 == 4 * (4 * 512 ** 2 + 4 * 512)
    assert sum(value.numel() for value in RAM(512, gate="zero").parameters()) == count + 2
    assert len(RAM(512).text_attention) == 2 and RAM(512).text_attention[0].num_heads == 8
    assert sum(value.numel() for value in RAM(512, attention="mean").parameters()) == count
    assert sum(value.numel() for value in RAM(512, layers=1).parameters()) == count / 2


@pytest.mark.parametrize("normalize", ["none", "branch", "sum"])
def test_a_gate_starts_from_the_query(normalize):
    image, r_img, r_txt = inputs(dtype=torch.float32)
    ram = RAM(8, heads=2, normalize=normalize, gate="zero", between="none")
    assert torch.equal(ram(image, r_img, r_txt), image)
    assert torch.equal(
        RAM(8, heads=2, layers=1, normalize=normalize, gate="zero")(image, r_img, r_txt), image
    )


def test_a_gate_with_relu_between_starts_from_the_querys_positive_part():
    """The gate stops what is added, not the ReLU: v's negative coordinates are lost all the same."""
    image, r_img, r_txt = inputs(dtype=torch.float32)
    result = RAM(8, heads=2, gate="zero")(image, r_img, r_txt)
    assert torch.equal(result, image.clamp(min=0))
    assert not torch.equal(result, image)


def test_relu_stands_between_layers_only():
    image, r_img, r_txt = inputs()
    with torch.no_grad():
        one = make(layers=1, between="relu")(image, r_img, r_txt)
        torch.testing.assert_close(one, make(layers=1, between="none")(image, r_img, r_txt))
        assert (make(layers=2, between="relu")(image, r_img, r_txt) < 0).any()  # none after the last


@pytest.mark.parametrize("normalize", ["branch", "sum"])
def test_what_a_normalized_layer_adds_has_bounded_length(normalize):
    image, r_img, r_txt = inputs(b=20)
    with torch.no_grad():
        added = make(layers=1, normalize=normalize)(image, r_img, r_txt) - image
    lengths = added.norm(dim=1)
    if normalize == "sum":
        torch.testing.assert_close(lengths, torch.ones(20, dtype=torch.float64))
    else:
        assert lengths.max() <= 2 + 1e-9 and lengths.std() > 1e-3


def test_order_of_the_pairs_does_not_matter_but_their_pairing_does():
    ram = make()
    image, r_img, r_txt = inputs()
    order = [2, 0, 3, 1]
    with torch.no_grad():
        result = ram(image, r_img, r_txt)
        torch.testing.assert_close(ram(image, r_img[:, order], r_txt[:, order]), result)
        assert not torch.allclose(ram(image, r_img[:, order], r_txt), result, atol=1e-4)


def test_copies_of_one_pair_count_as_that_pair():
    ram = make()
    image, r_img, r_txt = inputs(k=1)
    with torch.no_grad():
        torch.testing.assert_close(
            ram(image, r_img.repeat(1, 5, 1), r_txt.repeat(1, 5, 1)), ram(image, r_img, r_txt)
        )


def test_pictures_do_not_see_each_other():
    ram = make().eval()
    blocks = inputs(b=5)
    with torch.no_grad():
        together = ram(*blocks)
        alone = torch.cat([ram(*(block[row:row + 1] for block in blocks)) for row in range(5)])
    torch.testing.assert_close(together, alone)


def test_train_and_eval_are_the_same():
    blocks = inputs()
    with torch.no_grad():
        torch.testing.assert_close(make().train()(*blocks), make().eval()(*blocks))


@pytest.mark.parametrize("normalize, between, gate", CHOICES)
def test_gradients_are_right(normalize, between, gate):
    ram = make(dim=4, normalize=normalize, between=between, gate=gate)
    blocks = [block.requires_grad_() for block in inputs(b=2, k=2, d=4)]
    assert torch.autograd.gradcheck(ram, blocks)


@pytest.mark.parametrize("normalize", ["none", "branch", "sum"])
def test_every_weight_learns(normalize):
    ram = make(normalize=normalize, gate="zero")
    ram(*inputs(b=20)).pow(3).sum().backward()
    for name, value in ram.named_parameters():
        if name.endswith("in_proj_bias"):
            query, key, values = value.grad.split(8)
            assert query.abs().min() > 1e-9 and values.abs().min() > 1e-9, name
            assert key.abs().max() < 1e-9, name  # adds the same to every score: softmax doesn't see it
        else:
            assert value.grad is not None and value.grad.abs().sum() > 1e-6, name
            if value.ndim == 2:
                assert (value.grad.abs().sum(dim=1) > 0).all(), name  # each output's row


# ---- attention weights and the plain mean ----

def test_attention_weights_are_those_of_torchs_own_attention():
    """Layer by layer from e_1 = h_0 + both branches, h_1 = ReLU(e_1), with torch computing the weights."""
    ram = make(heads=4)
    image, r_img, r_txt = inputs()
    found, h = ram.attention_weights(image, r_img, r_txt), image
    assert len(found) == 2
    for layer, (text, picture) in enumerate(found):
        assert text.shape == picture.shape == (3, 4, 4) and not text.requires_grad
        torch.testing.assert_close(text.sum(dim=-1), torch.ones(3, 4, dtype=torch.float64))
        e = h
        for ours, attention, keys, values in ((text, ram.text_attention[layer], r_img, r_txt),
                                              (picture, ram.image_attention[layer], r_txt, r_img)):
            out, theirs = attention(h[:, None], keys, values, average_attn_weights=False)
            torch.testing.assert_close(ours, theirs.squeeze(2))
            e = e + out.squeeze(1)
        h = e.relu()


def test_a_mean_takes_the_same_from_each_neighbor_in_each_head():
    ram, blocks = make(attention="mean"), inputs(k=5)
    for branches in ram.attention_weights(*blocks):
        for weights in branches:
            assert torch.equal(weights, torch.full((3, 2, 5), 0.2, dtype=torch.float64))


def test_a_mean_is_the_attention_to_the_mean_neighbor():
    """W_v is linear: the mean of projected values is the projection of their mean. The query has no say."""
    ram, (image, r_img, r_txt) = make(layers=1, attention="mean"), inputs(k=5)
    attentive = make(layers=1)
    with torch.no_grad():
        means = r_img.mean(dim=1, keepdim=True), r_txt.mean(dim=1, keepdim=True)
        torch.testing.assert_close(ram(image, r_img, r_txt), attentive(image, *means))
        added = ram(image, r_img, r_txt) - image
        torch.testing.assert_close(ram(image + 1, r_img, r_txt) - image - 1, added)
        assert not torch.allclose(attentive(image + 1, r_img, r_txt) - image - 1,
                                  attentive(image, r_img, r_txt) - image, atol=1e-4)


def test_a_mean_trains_values_and_outputs_but_neither_queries_nor_keys():
    ram = make(attention="mean")
    ram(*inputs(b=20)).pow(3).sum().backward()
    for attention in [*ram.text_attention, *ram.image_attention]:
        query, key, value = attention.in_proj_weight.grad.split(8)
        assert not query.any() and not key.any() and value.abs().min() > 0


@pytest.mark.parametrize("options, message", [
    ({"attention": "max"}, "Unknown attention='max'. Known: 'learned', 'mean'"),
    ({"normalize": "both"}, "Unknown normalize='both'. Known: 'none', 'branch', 'sum'"),
    ({"normalize": True}, "Unknown normalize=True. Known: 'none', 'branch', 'sum'"),
    ({"between": "gelu"}, "Unknown between='gelu'. Known: 'relu', 'none'"),
    ({"gate": "one"}, "Unknown gate='one'. Known: None, 'zero'"),
    ({"heads": 7}, "heads that divide dim, got layers=2, heads=7, dim=512"),
    ({"heads": 0}, "heads=0, dim=512"),
    ({"layers": 0}, "Expected layers >= 1 and heads that divide dim, got layers=0"),
])
def test_unknown_choices_list_the_known(options, message):
    with pytest.raises(ValueError, match=message):
        RAM(512, **options)


@pytest.mark.parametrize(
    "shapes, message",
    [
        (((3, 4), (3, 2, 8), (3, 2, 8)), r"Expected image of shape \(b, 8\), got \(3, 4\)"),
        (((8,), (3, 2, 8), (3, 2, 8)), r"Expected image of shape \(b, 8\), got \(8,\)"),
        (((3, 8), (3, 8), (3, 2, 8)), r"Expected r_img of shape \(3, k, 8\).*got \(3, 8\)"),
        (((3, 8), (2, 2, 8), (2, 2, 8)), r"Expected r_img of shape \(3, k, 8\).*got \(2, 2, 8\)"),
        (((3, 8), (3, 2, 8), (3, 2, 4)), r"Expected r_txt of shape \(3, k, 8\).*got \(3, 2, 4\)"),
        (
            ((3, 8), (3, 2, 8), (3, 5, 8)),
            r"Expected r_txt of shape .*one k >= 1 for images and texts, got \(3, 5, 8\)",
        ),
        (((3, 8), (3, 0, 8), (3, 0, 8)), r"Expected r_img of shape .*one k >= 1.*got \(3, 0, 8\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        RAM(8)(*(torch.ones(shape) for shape in shapes))
