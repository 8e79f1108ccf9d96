"""Training: an independent form of the paper's code, seeds, batches, learning, stopping, messages."""

import math

import numpy as np
import pytest
import torch
from test_ram_gradient import plain

from impart_utils import training
from impart_utils.contrastive import contrastive_loss
from impart_utils.ram import plain_attention
from impart_utils.retrieval import Retriever
from impart_utils.training import apply_ram, chance_loss, new_ram, train_ram


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


def timeless(history):
    """A history without what no seed fixes: its seconds."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_weights(first, second):
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


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
    assert timeless(first_history) == timeless(second_history)
    assert_same_weights(first, second)
    for other in (trained(seed=1, epochs=2), trained(ram_seed=1, epochs=2)):  # other batches, other start
        assert timeless(other[1]) != timeless(first_history)


def test_equals_the_papers_code_written_anew():
    """torch's own attention and Adam, softmax and logarithm apart, T = 1: the steps of branch main."""
    images, texts, R_img, R_txt, indices = (torch.as_tensor(block) for block in problem(n=60))
    ram, _, _ = trained(data=problem(n=60), epochs=3, batch_size=25)
    other = new_ram(16, seed=0, heads=2)
    adam, order = torch.optim.Adam(other.parameters()), torch.Generator().manual_seed(0)
    for _ in range(3):
        for rows in torch.randperm(60, generator=order).split(25):
            v = other(images[rows], R_img[indices[rows]], R_txt[indices[rows]], attend=plain_attention)
            a, b = v / v.norm(dim=1, keepdim=True), texts[rows] / texts[rows].norm(dim=1, keepdim=True)
            S = a @ b.T / 1.0
            loss = -S.softmax(dim=1).log().diag().mean() - S.softmax(dim=0).log().diag().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    start = new_ram(16, seed=0, heads=2).state_dict()
    for name, value in other.state_dict().items():
        kept = torch.ones(len(value), dtype=bool)
        if name.endswith("in_proj_bias"):  # the keys' third changes no output
            kept[16:32] = False
        torch.testing.assert_close(ram.state_dict()[name][kept], value[kept], atol=2e-5, rtol=1e-4)
        assert (value - start[name]).abs().max() > 1e-3, name  # it did move


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


def test_each_pair_is_used_once_an_epoch_with_its_own_neighbors_the_last_partial_batch_too(monkeypatch):
    monkeypatch.setattr(training, "backward", plain)
    n, recorder = 25, Recorder()
    images = np.stack([np.arange(n), np.ones(n), np.arange(n) % 3], axis=1)
    R_img = np.stack([np.arange(10), np.zeros(10), np.ones(10)], axis=1)
    R_txt = np.stack([np.zeros(10), np.arange(10), np.ones(10)], axis=1)
    indices = np.stack([2 * np.arange(n) % 10, (2 * np.arange(n) + 1) % 10], axis=1)
    history = train_ram(recorder, images, images + 1, R_img, R_txt, indices, seed=0, epochs=3, batch_size=10,
                        progress=False)
    # after each epoch the same pairs once more, in their order, to measure the alignment
    assert [len(batch) for batch in recorder.batches] == [10, 10, 5] * 6
    epochs = [sum(recorder.batches[start:start + 3], []) for start in (0, 6, 12)]
    assert sum(recorder.batches[3:6], []) == list(range(n))
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(recorder.matches) and len(recorder.matches) == 6 * n
    assert [row["step"] for row in history] == list(range(1, 10))
    assert [row["epoch"] for row in history] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(isinstance(row["loss"], float) for row in history)
    last = {"epoch", "step", "loss", "learning_rate", "seconds", "temperature", "alignment"}
    for row in history:
        assert set(row) == (last if row["step"] % 3 == 0 else {"epoch", "step", "loss"})


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
    assert timeless(shown) == timeless(trained(data=data, epochs=2)[1])


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


# ---- what is measured, and what it changes ----

def test_each_epoch_cannot_change_the_training():
    seen = []

    def meddle(epoch, ram):
        torch.manual_seed(epoch)
        torch.rand(3)
        with torch.no_grad():
            seen.append((epoch, ram.training, ram.text_attention[0].in_proj_bias.abs().sum().item()))
            for value in ram.parameters():
                value.zero_()
        ram.train()
        return {"note": f"epoch {epoch}"}

    with torch.random.fork_rng():
        ram, history, _ = trained(epochs=2, each_epoch=meddle)
    plain, plain_history, _ = trained(epochs=2)
    assert_same_weights(ram, plain)
    assert [row.get("note") for row in history if "note" in row] == ["epoch 0", "epoch 1", "epoch 2"]
    assert history[0]["step"] == history[0]["epoch"] == 0 and "loss" not in history[0]
    assert [{name: row[name] for name in row if name != "note"} for row in timeless(history[1:])] == timeless(
        plain_history)
    assert [epoch for epoch, _, _ in seen] == [0, 1, 2] and not any(training for _, training, _ in seen)
    assert seen[0][2] == 0 < seen[1][2]  # before training torch's biases are zero


def test_seconds_add_up():
    _, history, _ = trained(epochs=3)
    seconds = [row["seconds"] for row in history if "seconds" in row]
    assert len(seconds) == 3 and 0 < seconds[0] < seconds[1] < seconds[2]


def test_alignment_of_the_history_is_that_of_rams_output():
    images, texts, R_img, R_txt, indices = data = problem(n=60)
    ram, history, _ = trained(data=data, epochs=2)
    a, b = apply_ram(ram, images, R_img, R_txt, indices), texts
    a, b = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (a, b))
    cosines = a @ b.T
    own, others = np.diag(cosines).mean(), cosines[~np.eye(60, dtype=bool)].mean()
    assert history[-1]["alignment"] == pytest.approx(own - others, abs=1e-5)


# ---- temperature and schedule ----

def test_a_learned_temperature_moves_by_its_own_gradient_and_stops_at_a_hundredth():
    _, history, _ = trained(epochs=2, temperature=0.07, learn_temperature=True)
    found = [row["temperature"] for row in history if "temperature" in row]
    # Adam moves ln T by about the learning rate a step, and there are 12 steps
    assert len(set(found)) == 2 and all(abs(math.log(value / 0.07)) < 0.0125 for value in found)
    _, history, _ = trained(epochs=8, temperature=0.02, learn_temperature=True, learning_rate=0.1,
                            options={"layers": 1, "gate": "zero"}, data=aligned())
    assert min(row["temperature"] for row in history if "temperature" in row) == pytest.approx(0.01)
    _, fixed, _ = trained(epochs=1, temperature=0.07)
    assert fixed[-1]["temperature"] == pytest.approx(0.07)


def aligned(n=200):
    """Pairs whose texts are their pictures: the smaller the temperature the better."""
    images = np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32)
    return images, images, images[:5], images[:5], np.zeros((n, 2), int)


def test_cosine_schedule_falls_from_the_learning_rate_to_near_zero():
    _, history, _ = trained(epochs=4, schedule="cosine", learning_rate=0.01)  # 6 steps an epoch
    rates = [row["learning_rate"] for row in history if "learning_rate" in row]
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 24)) for step in (5, 11, 17, 23)])
    _, constant, _ = trained(epochs=4, learning_rate=0.01)
    assert {row["learning_rate"] for row in constant if "learning_rate" in row} == {0.01}
    assert history[0]["loss"] == constant[0]["loss"] and history[-1]["loss"] != constant[-1]["loss"]


def test_max_steps_stops_within_an_epoch():
    _, history, _ = trained(epochs=8, max_steps=8)
    assert [row["step"] for row in history] == list(range(1, 9)) and "alignment" in history[-1]
    _, longer, _ = trained(epochs=2)
    assert [row["loss"] for row in history] == [row["loss"] for row in longer[:8]]


# ---- validation and early stopping ----

def test_early_stopping_keeps_the_best_weights():
    images, texts, R_img, R_txt, indices = problem(n=160)
    few = [block[:60] for block in (images, texts)], indices[:60]
    held = images[60:], texts[60:], indices[60:]
    kept = []
    ram = new_ram(16, seed=0, heads=2)
    history = train_ram(ram, *few[0], R_img, R_txt, few[1], seed=0, epochs=60, learning_rate=0.02,
                        temperature=0.07, validation=held, patience=3, progress=False,
                        each_epoch=lambda epoch, copy: kept.append(copy) or {})
    losses = [row["validation_loss"] for row in history if "validation_loss" in row]
    best = int(np.argmin(losses))
    assert 0 < best and len(losses) == best + 1 + 3 < 61  # three epochs without a better one, then none
    assert_same_weights(ram, kept[best])
    assert not torch.equal(ram.image_attention[0].in_proj_weight, kept[-1].image_attention[0].in_proj_weight)


def test_validation_loss_is_the_loss_of_pairs_not_trained_on():
    images, texts, R_img, R_txt, indices = problem(n=160)
    held = images[100:], texts[100:], indices[100:]
    ram, history, _ = trained(data=(images[:100], texts[:100], R_img, R_txt, indices[:100]), epochs=1,
                              validation=held)
    other, plain, _ = trained(data=(images[:100], texts[:100], R_img, R_txt, indices[:100]), epochs=1)
    assert_same_weights(ram, other)  # to look changes nothing
    out = torch.from_numpy(apply_ram(ram, held[0], R_img, R_txt, held[2]))
    expected = contrastive_loss(out, torch.from_numpy(held[1]))
    assert history[-1]["validation_loss"] == pytest.approx(expected.item(), abs=1e-4)
    assert history[-1]["alignment"] != plain[-1]["alignment"]  # that of the held-out pairs


def test_training_that_only_harms_keeps_the_start():
    images, texts, R_img, R_txt, indices = aligned(40)  # nothing to gain: each text is its picture
    ram = new_ram(16, seed=0, heads=2, layers=1, gate="zero")
    start = {name: value.clone() for name, value in ram.state_dict().items()}
    wrong = texts[::-1].copy()
    train_ram(ram, images, wrong, R_img, R_txt, indices, seed=0, epochs=20, learning_rate=0.05,
              temperature=0.1, validation=(images, texts, indices), patience=2, progress=False)
    assert all(torch.equal(value, start[name]) for name, value in ram.state_dict().items())


# ---- arrays on disk ----

def test_memory_mapped_pairs_are_read_batch_by_batch_and_train_the_same(tmp_path, monkeypatch):
    images, texts, R_img, R_txt, indices = data = problem(n=130)
    mapped = []
    for name, block in (("images", images), ("texts", texts)):
        np.save(tmp_path / f"{name}.npy", block)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    ram, history, _ = trained(data=data, epochs=2)
    read = []
    plain = np.memmap.__getitem__

    def counted(block, rows):
        read.append(len(rows) if hasattr(rows, "__len__") else rows)
        return plain(block, rows)

    monkeypatch.setattr(np.memmap, "__getitem__", counted)
    other, other_history, _ = trained(data=(*mapped, R_img, R_txt, indices), epochs=2)
    assert max(read) == 100 and sum(read) == 2 * 4 * 130  # 2 blocks; 2 epochs, trained and measured
    assert timeless(history) == timeless(other_history)
    assert_same_weights(ram, other)
    np.testing.assert_array_equal(apply_ram(other, mapped[0], R_img, R_txt, indices),
                                  apply_ram(ram, images, R_img, R_txt, indices))


def test_half_precision_features_train_in_single_precision():
    data = problem(n=40)
    rounded = [block.astype(np.float16) for block in data[:4]]
    single = [block.astype(np.float32) for block in rounded]
    first, second = (trained(data=(*blocks, data[4]), epochs=1) for blocks in (rounded, single))
    assert_same_weights(first[0], second[0])


# ---- messages ----

@pytest.mark.parametrize("settings, message", [
    ({"epochs": 0}, "batch_size and max_steps of at least 1 and temperature > 0, got 0, 100, None and 1"),
    ({"batch_size": 0}, "got 8, 0, None"), ({"max_steps": -1}, "got 8, 100, -1"),
    ({"temperature": 0.0}, "temperature > 0, got 8, 100, None and 0"),
    ({"schedule": "step"}, "Unknown schedule 'step'. Known: 'constant', 'cosine'"),
    ({"patience": 3}, "patience >= 1 together with validation pairs, got patience=3 and no validation pairs"),
])
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        trained(data=problem(n=20), **settings)


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
