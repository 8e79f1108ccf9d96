"""The loss by hand, and the alignment against a slow loop."""

import math

import numpy as np
import pytest
import torch

from impart_utils.contrastive import alignment, chance_loss, contrastive_loss


def test_chance_is_twice_ln_b():
    constant = torch.ones(100, 8)
    assert contrastive_loss(constant, constant).item() == pytest.approx(2 * math.log(100), abs=1e-5)
    assert chance_loss(100) == pytest.approx(9.2103, abs=5e-5)
    rng = torch.Generator().manual_seed(0)
    wide = torch.randn(100, 4096, generator=rng), torch.randn(100, 4096, generator=rng)
    assert contrastive_loss(*wide).item() == pytest.approx(chance_loss(100), abs=0.02)


@pytest.mark.parametrize("text, temperature, expected", [
    # S = identity / T: each row and column is ln(1 + exp(-1/T))
    ([[1, 0], [0, 1]], 1.0, 2 * math.log(1 + math.exp(-1))),
    ([[1, 0], [0, 1]], 0.5, 2 * math.log(1 + math.exp(-2))),
    # both pairs swapped: ln(1 + exp(1/T))
    ([[0, 1], [1, 0]], 1.0, 2 * math.log(1 + math.e)),
    # S = [[1, 1], [0, 0]]: rows ln 2; columns ln(1 + 1/e) and ln(1 + e)
    ([[1, 0], [1, 0]], 1.0, math.log(2) + (math.log(1 + 1 / math.e) + math.log(1 + math.e)) / 2),
])
def test_two_pairs_by_hand(text, temperature, expected):
    image = torch.tensor(
        [[3.0, 0.0], [0.0, 0.2]]
    )  # unit vectors but for their lengths, which count for nothing
    loss = contrastive_loss(image, 7 * torch.tensor(text, dtype=torch.float32), temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    a, b, temperature = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)), 0.3
    S = [[float(x @ y / np.linalg.norm(x) / np.linalg.norm(y) / temperature) for y in b] for x in a]
    loss = 0.0
    for i in range(6):
        loss += (math.log(sum(math.exp(S[i][j]) for j in range(6))) - S[i][i]) / 6
        loss += (math.log(sum(math.exp(S[j][i]) for j in range(6))) - S[i][i]) / 6
    result = contrastive_loss(torch.tensor(a), torch.tensor(b), temperature)
    assert result.item() == pytest.approx(loss, abs=1e-12)


def test_best_value_at_temperature_1_as_the_docstring_says():
    # each pair cosine 1, all others 0: 2 ln(1 + (B - 1) / e), 7.24 for 100, against 9.21 at chance
    eye = torch.eye(100)
    assert contrastive_loss(eye, eye).item() == pytest.approx(2 * math.log(1 + 99 / math.e), abs=1e-5)


def test_aligned_pairs_have_the_lower_loss():
    image = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    aligned = contrastive_loss(image, image + 0.1)
    assert aligned < chance_loss(20) < contrastive_loss(image, image.roll(1, dims=0), 0.1)
    assert contrastive_loss(image, image, 0.07) < contrastive_loss(image, image, 1.0)


def test_symmetric_in_its_arguments():
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(contrastive_loss(a, b, 0.2), contrastive_loss(b, a, 0.2))


def test_a_small_temperature_does_not_overflow():
    eye = torch.eye(4)
    assert contrastive_loss(eye, eye, 1e-4).item() == 0
    assert contrastive_loss(eye, eye.roll(1, dims=0), 1e-4).item() == pytest.approx(2e4)


def test_gradients_are_right():
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_loss, (a.requires_grad_(), b.requires_grad_(), temperature))


@pytest.mark.parametrize(
    "image, text", [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4,), (4,)), ((2, 4, 3), (2, 4, 3))]
)
def test_loss_refuses_shapes_that_do_not_fit(image, text):
    with pytest.raises(ValueError, match=r"image and text of one shape \(b, d\), got"):
        contrastive_loss(torch.ones(image), torch.ones(text))


@pytest.mark.parametrize("temperature", [0, -0.07, float("nan")])
def test_loss_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match="Expected temperature > 0, got"):
        contrastive_loss(torch.ones(2, 2), torch.ones(2, 2), temperature)


# ---- alignment ----

def test_alignment_equals_the_table_of_all_cosines():
    a, b = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    own, others = [], []
    for i in range(7):
        for j in range(7):
            cosine = float(a[i] @ b[j] / a[i].norm() / b[j].norm())
            (own if i == j else others).append(cosine)
    assert alignment(a, b) == pytest.approx(np.mean(own) - np.mean(others), abs=1e-12)


@pytest.mark.parametrize("text, expected", [
    ([[1, 0], [0, 1]], 1.0), ([[0, 1], [1, 0]], -1.0), ([[1, 0], [1, 0]], 0.0), ([[2, 2], [2, 2]], 0.0)])
def test_alignment_by_hand(text, expected):
    image = torch.tensor([[3.0, 0.0], [0.0, 0.2]])
    assert alignment(image, torch.tensor(text, dtype=torch.float32)) == pytest.approx(expected, abs=1e-6)


def test_alignment_of_one_pair_is_its_cosine():
    assert alignment(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])) == pytest.approx(0.6)
