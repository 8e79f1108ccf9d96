"""What RAM looks at: entropies and correlations worked by hand, neighbors taken away one by one."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from impart_utils.evidence.attention import counterfactuals, entropy, rank_correlation
from impart_utils.training import apply_ram, new_ram


def test_entropy_of_a_plain_mean_and_of_one_neighbor():
    weights = np.array([[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy(weights), [np.log(4), 0, np.log(2)])


def test_entropy_wants_a_softmax():
    with pytest.raises(ValueError, match="sums to 1"):
        entropy([[0.5, 0.2]])


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    weights, similarities = rng.dirichlet(np.ones(8), 20), rng.normal(size=(20, 8))
    weights[3, 2] = weights[3, 5]  # a tie
    expected = [spearmanr(a, b).statistic for a, b in zip(weights, similarities, strict=True)]
    np.testing.assert_allclose(rank_correlation(weights, similarities), expected, atol=1e-12)
    falling = np.array([[3.0, 2.0, 1.0]])
    assert rank_correlation(falling, falling) == 1 and rank_correlation(falling, -falling) == -1
    assert np.isnan(rank_correlation(np.full((1, 3), 1 / 3), falling))


@pytest.fixture
def setting():
    rng = np.random.default_rng(1)
    v, R_img, R_txt = (rng.normal(size=(rows, 16)).astype(np.float32) for rows in (6, 40, 40))
    indices = np.array([rng.choice(40, 4, replace=False) for _ in range(6)])
    return new_ram(16, seed=0, heads=2), v, R_img, R_txt, indices, rng.normal(size=(5, 16))


def test_counterfactuals_against_a_loop(setting):
    ram, v, R_img, R_txt, indices, W = setting
    table = counterfactuals(ram, v, R_img, R_txt, indices, W, seed=0)
    assert list(table.index) == [1, 2, 3, 4]
    before = apply_ram(ram, v, R_img, R_txt, indices)
    W = W / np.linalg.norm(W, axis=1, keepdims=True)
    angles, changed = [], []
    for row in range(6):  # take the second neighbor away
        kept = indices[row, [0, 2, 3]][None]
        after = apply_ram(ram, v[row:row + 1], R_img, R_txt, kept)[0]
        cosine = before[row] @ after / np.linalg.norm(before[row]) / np.linalg.norm(after)
        angles.append(np.degrees(np.arccos(cosine)))
        changed.append((W @ before[row]).argmax() != (W @ after).argmax())
    assert table.loc[2, "turned, deleted"] == pytest.approx(np.mean(angles), rel=1e-3)
    assert table.loc[2, "changed, deleted"] == np.mean(changed)


def test_a_copy_can_be_deleted_without_effect(setting):
    """Eight times the same neighbor: attention shares itself out, and one less changes nothing."""
    ram, v, R_img, R_txt, _, W = setting
    same = np.zeros((6, 4), np.int64)
    table = counterfactuals(ram, v, R_img, R_txt, same, W, seed=0)
    assert table["turned, deleted"].max() < 0.1 and (table["changed, deleted"] == 0).all()
    assert table["turned, swapped"].min() > 1  # a stranger does change something


def test_counterfactuals_same_seed_same_strangers(setting):
    ram, v, R_img, R_txt, indices, W = setting
    a, b = (counterfactuals(ram, v, R_img, R_txt, indices, W, seed=3) for _ in range(2))
    assert a.equals(b)
    with pytest.raises(ValueError, match="k >= 2"):
        counterfactuals(ram, v, R_img, R_txt, indices[:, :1], W, seed=3)
