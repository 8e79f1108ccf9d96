"""The loss by hand, and training: seeds, batches, learning, checkpoints, messages."""

import math

import numpy as np
import pytest
import torch

from impart_utils.ram import RAM
from impart_utils.retrieval import Retriever
from impart_utils.training import (
    PAPER_CODE,
    apply_ram,
    chance_loss,
    contrastive_loss,
    load_ram,
    new_ram,
    save_ram,
    train_ram,
)


def problem(n=600, m=100, d=16, k=4, seed=0):
    """Pairs whose text is a rotation of the picture, and references that show that rotation."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, d))
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    images = centers[rng.integers(40, size=n + m)] + 0.5 * rng.normal(size=(n + m, d))
    texts = images @ rotation
    images, texts = images.astype(np.float32), texts.astype(np.float32)
    _, indices = Retriever(images[:m]).search(images[m:], k)
    return images[m:], texts[m:], images[:m], texts[:m], indices


def trained(seed=0, *, ram_seed=0, options=None, data=None, **settings):
    ram = new_ram(16, seed=ram_seed, **{"heads": 2, **(options or {})})
    data = problem() if data is None else data
    return ram, train_ram(ram, *data, seed=seed, progress=False, **settings), data


# ---- the loss ----

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


# ---- training ----

def test_settings_of_the_papers_code():
    assert PAPER_CODE == {"epochs": 8, "batch_size": 100, "learning_rate": 1e-3, "temperature": 1.0}


def test_new_ram_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = new_ram(16, seed=3).state_dict()
    torch.manual_seed(2)
    second, other = new_ram(16, seed=3).state_dict(), new_ram(16, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["text_attention.0.in_proj_weight"], other["text_attention.0.in_proj_weight"])


def test_one_seed_trains_the_same_to_the_last_bit():
    first, first_history, _ = trained(epochs=2)
    second, second_history, _ = trained(epochs=2)
    assert first_history == second_history
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    _, other, _ = trained(seed=1, epochs=2)  # the same weights at first, other batches
    assert other != first_history
    _, other, _ = trained(ram_seed=1, epochs=2)
    assert other != first_history


def test_global_generators_stay_as_they_were():
    torch.manual_seed(5)
    np.random.seed(5)
    state, numpy_state = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    trained(epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("normalize", ["none", "branch", "sum"])
def test_learns_a_learnable_problem(normalize):
    _, history, _ = trained(options={"normalize": normalize}, epochs=8, learning_rate=5e-3, temperature=0.07)
    first, last = (np.mean([row["loss"] for row in history if row["epoch"] == epoch]) for epoch in (1, 8))
    assert last < 0.6 * first


def test_pairs_not_trained_on_gain_too():
    images, texts, R_img, R_txt, indices = problem(n=900)
    ram = new_ram(16, seed=0, heads=2)

    def recall():
        """Share of the last 300 pictures whose own text is the nearest of their 300."""
        v, t = apply_ram(ram, images[600:], R_img, R_txt, indices[600:]), texts[600:]
        v, t = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (v, t))
        return np.mean((v @ t.T).argmax(axis=1) == np.arange(300))

    before = recall()
    train_ram(
        ram,
        images[:600],
        texts[:600],
        R_img,
        R_txt,
        indices[:600],
        seed=0,
        epochs=10,
        learning_rate=5e-3,
        temperature=0.07,
        progress=False,
    )
    assert before < 0.03 < 0.1 < recall()  # chance is 1 in 300


class Recorder(torch.nn.Module):
    """Stands in for RAM: notes which pictures and which references it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(3))
        self.batches, self.matches = [], []

    def forward(self, image, r_img, r_txt):
        rows = image[:, 0].round().int().tolist()
        self.batches.append(rows)
        # reference j has j in column 0; picture i was given the references 2i and 2i + 1 modulo 10
        self.matches += [r_img[b, :, 0].tolist() == r_txt[b, :, 1].tolist() == [2 * i % 10, (2 * i + 1) % 10]
                         for b, i in enumerate(rows)]
        return image @ self.weight


def test_each_pair_is_used_once_an_epoch_with_its_own_neighbors_the_last_partial_batch_too():
    n, recorder = 25, Recorder()
    images = np.stack([np.arange(n), np.ones(n), np.arange(n) % 3], axis=1)
    R_img = np.stack([np.arange(10), np.zeros(10), np.ones(10)], axis=1)
    R_txt = np.stack([np.zeros(10), np.arange(10), np.ones(10)], axis=1)
    indices = np.stack([2 * np.arange(n) % 10, (2 * np.arange(n) + 1) % 10], axis=1)
    history = train_ram(recorder, images, images + 1, R_img, R_txt, indices, seed=0, epochs=3, batch_size=10,
                        progress=False)
    assert [len(batch) for batch in recorder.batches] == [10, 10, 5] * 3
    epochs = [sum(recorder.batches[start:start + 3], []) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(recorder.matches) and len(recorder.matches) == 3 * n
    assert [row["step"] for row in history] == list(range(1, 10))
    assert [row["epoch"] for row in history] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(set(row) == {"epoch", "step", "loss"} and isinstance(row["loss"], float) for row in history)


def test_pictures_and_texts_stay_together():
    """A rotation of pairs within the batch would train on wrong pairs: the first loss tells."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(50, 16)).astype(np.float32)
    ram = new_ram(16, seed=0, heads=2, layers=1, gate="zero")  # starts from the pictures themselves
    history = train_ram(ram, images, images, images[:5], images[:5], np.zeros((50, 2), int), seed=0, epochs=1,
                        batch_size=50, temperature=0.05, progress=False)
    assert history[0]["loss"] < 0.1 < chance_loss(50)


def test_training_ends_in_eval_mode_and_inputs_stay_untouched():
    data = problem(n=40)
    before = [block.copy() for block in data]
    ram, _, _ = trained(data=data, epochs=1)
    assert not ram.training
    for block, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(block, copy)


def test_progress_shows_a_bar_and_changes_nothing(capsys):
    data = problem(n=40)
    ram = new_ram(16, seed=0, heads=2)
    shown = train_ram(ram, *data, seed=0, epochs=2, progress=True)
    assert "training RAM" in capsys.readouterr().out
    assert shown == trained(data=data, epochs=2)[1]


def test_apply_in_batches_equals_one_pass_and_the_module_itself():
    ram, (images, _, R_img, R_txt, indices) = new_ram(16, seed=0, heads=2), problem(n=53)
    whole = apply_ram(ram, images, R_img, R_txt, indices)
    batches = apply_ram(ram, images, R_img, R_txt, indices, batch_size=10)  # the last one of 3
    assert whole.shape == batches.shape == (53, 16) and whole.dtype == np.float32
    np.testing.assert_allclose(batches, whole, atol=1e-6)
    with torch.no_grad():
        itself = ram(*(torch.from_numpy(block) for block in (images, R_img[indices], R_txt[indices])))
    np.testing.assert_allclose(whole, itself.numpy(), atol=1e-6)


def test_apply_to_no_query():
    ram, (images, _, R_img, R_txt, indices) = new_ram(16, seed=0, heads=2), problem(n=5)
    assert apply_ram(ram, images[:0], R_img, R_txt, indices[:0]).shape == (0, 16)


def test_saved_and_loaded_ram_gives_the_same_bits(tmp_path):
    options = {"heads": 4, "layers": 3, "normalize": "branch", "between": "none", "gate": "zero"}
    ram = new_ram(16, seed=0, **options)
    with torch.no_grad():
        ram.gate += 0.5
    images, _, R_img, R_txt, indices = problem(n=20)
    history = [{"epoch": 1, "step": 1, "loss": 0.1 + 0.2}]
    save_ram(tmp_path / "new" / "ram.safetensors", ram, options, history)
    again, again_history = load_ram(tmp_path / "new" / "ram.safetensors")
    assert isinstance(again, RAM) and not again.training
    assert again_history == history
    np.testing.assert_array_equal(apply_ram(again, images, R_img, R_txt, indices),
                                  apply_ram(ram, images, R_img, R_txt, indices))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ram.safetensors"]


def test_loading_what_is_no_ram(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors holds no RAM.*save_ram"):
        load_ram(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        load_ram(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("change", ["texts", "neighbors", "nothing"])
def test_arrays_that_do_not_fit(change):
    images, texts, R_img, R_txt, indices = problem(n=20)
    texts = texts[:19] if change == "texts" else texts
    indices = indices[:18] if change == "neighbors" else indices
    if change == "nothing":
        images, texts, indices = images[:0], texts[:0], indices[:0]
    with pytest.raises(
        ValueError,
        match=f"one text and one row of neighbors per training picture, got {len(images)} "
        f"pictures, {len(texts)} texts, {len(indices)} rows",
    ):
        train_ram(new_ram(16, seed=0), images, texts, R_img, R_txt, indices, seed=0, progress=False)


def test_features_of_another_dimension():
    images, texts, R_img, R_txt, indices = problem(n=20)
    with pytest.raises(ValueError, match=r"Expected image of shape \(b, 8\), got \(20, 16\)"):
        train_ram(new_ram(8, seed=0), images, texts, R_img, R_txt, indices, seed=0, progress=False)


@pytest.mark.parametrize("row", [-1, 100])
def test_neighbors_that_do_not_exist(row):
    images, texts, R_img, R_txt, indices = problem(n=20)
    indices[3, 1] = row  # -1 would silently be the last reference, as FAISS marks "none found"
    ram = new_ram(16, seed=0)
    with pytest.raises(ValueError, match="neighbor_indices from 0 to 99"):
        train_ram(ram, images, texts, R_img, R_txt, indices, seed=0, epochs=1, progress=False)
    with pytest.raises(ValueError, match="neighbor_indices from 0 to 99"):
        apply_ram(ram, images, R_img, R_txt, indices)


def test_apply_refuses_another_number_of_neighbor_rows():
    images, _, R_img, R_txt, indices = problem(n=20)
    with pytest.raises(ValueError, match="row of neighbors|neighbor_indices"):
        apply_ram(new_ram(16, seed=0), images, R_img, R_txt, indices[:10], batch_size=10)


def test_nan_in_the_features_stops_training():
    images, texts, R_img, R_txt, indices = problem(n=20)
    texts[7, 2] = np.nan
    with pytest.raises(ValueError, match="(?i)nan"):
        train_ram(new_ram(16, seed=0), images, texts, R_img, R_txt, indices, seed=0, epochs=1, progress=False)


def test_a_diverging_loss_stops_training_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"The loss is \S+ in epoch \d+. Lower learning_rate or raise temperature"
    ):
        trained(epochs=30, learning_rate=1e35, data=problem(n=20))
