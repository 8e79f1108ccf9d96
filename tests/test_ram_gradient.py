"""The gradient written out against automatic differentiation; Adam against torch's."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_ram import inputs, make

from impart_utils import training
from impart_utils.adam import Adam
from impart_utils.contrastive import contrastive_loss
from impart_utils.ram_gradient import backward
from impart_utils.ram_variants import CONFIGURATIONS, configuration, parts
from impart_utils.training import new_ram, train_ram

OPTIONS = [dict(zip(("normalize", "between", "gate", "attention", "layers"), values, strict=True))
           for values in itertools.product(["none", "branch", "sum"], ["relu", "none"], [None, "zero"],
                                           ["learned", "mean"], [1, 3])]


def plain(ram, log_temperature, image, r_img, r_txt, text):
    """What `backward` stands for, by automatic differentiation."""
    for value in (*ram.parameters(), log_temperature):
        value.grad = None
    loss = contrastive_loss(ram(image, r_img, r_txt), text, log_temperature.exp())
    loss.backward()
    return loss.item()


def both(ram, blocks, temperature=0.5):
    """((loss, gradients by every parameter and by ln T) of either way), side by side."""
    text = torch.randn(blocks[0].shape, generator=torch.Generator().manual_seed(5), dtype=blocks[0].dtype)
    log_temperature = torch.tensor(temperature, dtype=blocks[0].dtype).log().requires_grad_()
    found = []
    for way in (backward, plain):
        loss = torch.tensor(way(ram, log_temperature, *blocks, text), dtype=blocks[0].dtype)
        found.append([loss, *(value.grad for value in (*ram.parameters(), log_temperature))])
    return zip(*found, strict=True)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_every_choice_has_the_loss_and_gradients_of_automatic_differentiation(options):
    ram = make(heads=4, **options)
    for by_hand, expected in both(ram, inputs(b=5)):
        torch.testing.assert_close(by_hand, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_named_configurations_agree_in_single_precision_at_the_papers_size(name, temperature):
    ram = new_ram(512, seed=0, **parts(configuration(name))[0])
    with torch.no_grad():
        if ram.gate is not None:
            ram.gate.fill_(0.3)
    for by_hand, expected in both(ram, inputs(b=100, k=8, d=512, dtype=torch.float32), temperature):
        rounding = 2e-5 if expected.ndim else 1e-4  # ln T's is a sum of b * b terms that cancel
        assert (by_hand - expected).abs().max() <= rounding * expected.abs().max()


def test_the_gradient_is_that_of_small_changes():
    ram, (image, r_img, r_txt) = make(dim=4, normalize="branch", gate="zero"), inputs(b=2, k=2, d=4)
    text, log_temperature = image.flip(0) + 0.3, torch.tensor(-0.7, dtype=image.dtype, requires_grad=True)
    backward(ram, log_temperature, image, r_img, r_txt, text)
    with torch.no_grad():
        for value in (*ram.parameters(), log_temperature):
            flat, expected = value.view(-1), value.grad.clone().view(-1)
            for place in range(len(flat)):
                kept, losses = flat[place].item(), []
                for step in (1e-5, -1e-5):
                    flat[place] = kept + step
                    losses.append(contrastive_loss(ram(image, r_img, r_txt), text, log_temperature.exp()))
                flat[place] = kept
                slope = (losses[0] - losses[1]).item() / 2e-5
                assert slope == pytest.approx(expected[place].item(), abs=1e-8)


def test_what_stood_in_grad_before_is_gone_and_constants_get_none():
    ram, blocks, log_temperature = make(), inputs(), torch.tensor(0.0)
    once = {}
    for _ in range(2):  # `loss.backward()` alone would add the second to the first
        backward(ram, log_temperature, *blocks, blocks[0].flip(1))
        once = once or {name: value.grad.clone() for name, value in ram.named_parameters()}
    assert all(torch.equal(value.grad, once[name]) for name, value in ram.named_parameters())
    assert log_temperature.grad is None and all(block.grad is None for block in blocks)


def pairs(n=200, m=30, d=16, k=4):
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal((rows, d)).astype("float32") for rows in (n, n, m, m)]
    return *blocks, rng.integers(0, m, (n, k))


@pytest.mark.parametrize("name", ["paper_code", "branch", "learned_temperature", "zero_gate"])
def test_a_training_goes_as_with_automatic_differentiation(name, monkeypatch):
    options, settings = parts(configuration(name, epochs=4, batch_size=50))
    histories, rams = [], []
    for way in (backward, plain):
        monkeypatch.setattr(training, "backward", way)
        rams.append(new_ram(16, seed=0, **options))
        histories.append(train_ram(rams[-1], *pairs(), seed=0, progress=False, **settings))
    losses = np.array([[row["loss"] for row in history] for history in histories])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0, -4:].mean() < losses[0, :4].mean()
    for value, expected in zip(*(ram.parameters() for ram in rams), strict=True):
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-3)


def test_adam_is_torchs_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((7, 5), (3,), ())]
    ours, theirs = ([value.clone().requires_grad_() for value in start] for _ in range(2))
    adam, expected = Adam(ours), torch.optim.Adam(theirs, lr=1e-3, fused=True)
    for step in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator) * 10.0 ** (step - 2)
            other.grad = one.grad.clone()
        expected.param_groups[0]["lr"] = rate = 1e-2 / (step + 1)
        adam.step(rate)
        expected.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    assert not any(torch.equal(one, value) for one, value in zip(ours, start, strict=True))
    for row, state in enumerate(expected.state_dict()["state"].values()):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(state[name], adam.state[name][row])


def test_training_imports_no_compiler():
    """torch._dynamo costs each worker seconds; `torch.optim.Adam` would import it."""
    code = ("import sys, numpy as np\n"
            "from impart_utils.training import new_ram, train_ram\n"
            "rng = np.random.default_rng(0)\n"
            "block, near = rng.standard_normal((20, 16)), rng.integers(0, 20, (20, 3))\n"
            "train_ram(new_ram(16, seed=0), *[block] * 4, near, seed=0, epochs=1, progress=False)\n"
            "assert 'torch._dynamo' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
