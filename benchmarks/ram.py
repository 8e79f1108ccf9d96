"""Training RAM: the paper's way against features computed once; the attention, plain against folded.

    python benchmarks/ram.py [--quick] [--pairs 300] [--rounds 5]
    python benchmarks/ram.py --large [--quick]        (see ram_large.py)

The paper's code opens, encodes and retrieves each of its 9000 pairs again in every epoch; here they are
encoded once. Both ways are measured in turns, in one process, on `--pairs` pairs (a full-size ViT-B/32 with
random weights, JPEG files of 500 x 375 pixels, captions of YFCC's lengths) and then multiplied up to 9000
pairs and 8 epochs: the first table is measured, the second computed from it. Steps of RAM, inference and the
search for neighbors are measured at full size. Writes benchmarks/ram.json.
"""

import argparse
import tempfile

import numpy as np
import pandas as pd
import ram_large
import torch
from encoding_inputs import SMALL, VIT_B32, captions, lowered, photo_files, random_clip
from ram_large import random_features
from timing import alternate, save, summary

from impart_utils.adam import Adam
from impart_utils.ram import RAM, folded_attention, plain_attention
from impart_utils.ram_gradient import backward
from impart_utils.retrieval import Retriever
from impart_utils.training import PAPER_CODE, apply_ram, new_ram, train_ram

PAIRS, EPOCHS, BATCH, REFERENCES, TOP_K, DIM = 9000, 8, 100, 1000, 8, 512
GOALS = {"whole training, fp32": 10, "whole training, bf16": 22, "a further epoch": 150, "a step": 2,
         "inference": 3}


# ---- The paper's way, written anew from what its code does -------------------------------------------------


def papers_attention(attention, query, keys, values):
    """As the paper's code calls it: torch's module, its weights computed too and thrown away."""
    return attention(query.unsqueeze(1), keys, values)[0].squeeze(1)


def papers_loss(image, text):
    """Softmax, then its logarithm, both ways; T = 1."""
    a, b = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    scores = a @ b.T
    return -scores.softmax(dim=1).log().diag().mean() - scores.softmax(dim=0).log().diag().mean()


def papers_retrieval(v, R_img):
    """References normalized anew, all scores sorted: (b, d), (m, d) -> (b, k)."""
    scores = (v / v.norm(dim=1, keepdim=True)) @ (R_img / R_img.norm(dim=1, keepdim=True)).T
    return scores.argsort(dim=1, descending=True)[:, :TOP_K]


def papers_encoding(clip, files, texts):
    """Open, preprocess and encode in batches of 100; captions on all 77 tokens."""
    from PIL import Image

    from impart_utils.sources.checkpoints import import_clip

    with torch.no_grad():
        for start in range(0, len(files), BATCH):
            rows = slice(start, start + BATCH)
            pixels = torch.stack([clip.preprocess(Image.open(path)) for path in files[rows]])
            clip.model.encode_image(pixels)
            clip.model.encode_text(import_clip().tokenize(texts[rows], truncate=True))


def papers_epoch_after_encoding(ram, adam, blocks, steps):
    """Retrieval and a step of RAM for `steps` batches."""
    v, t, R_img, R_txt = blocks
    for start in range(0, steps * BATCH, BATCH):
        rows = slice(start, start + BATCH)
        near = papers_retrieval(v[rows], R_img)
        papers_step(ram, adam, v[rows], R_img[near], R_txt[near], t[rows])


def papers_step(ram, adam, v, r_img, r_txt, t):
    loss = papers_loss(ram(v, r_img, r_txt, attend=papers_attention), t)
    adam.zero_grad()
    loss.backward()
    adam.step()


# ---- The kit's ---------------------------------------------------------------------------------------------


def kit_encoding(clip, files, texts):
    """Files and captions -> features, once."""
    from impart_utils.sources.pictures_io import open_picture

    for start in range(0, len(files), BATCH):
        clip.encode_images([open_picture(path) for path in files[start:start + BATCH]])
    clip.encode_texts(texts)


def kit_step(ram, adam, v, r_img, r_txt, t):
    backward(ram, torch.tensor(0.0), v, r_img, r_txt, t)  # ln T of T = 1
    adam.step(PAPER_CODE["learning_rate"])


def training(*, pairs=300, rounds=5, sizes=VIT_B32, n=PAIRS, m=REFERENCES, dim=DIM, seed=0):
    """(parts measured, ratios extrapolated to n pairs and 8 epochs), DataFrames."""
    v, t, R_img, R_txt = blocks = random_features(n, m, dim)
    tensors = [torch.from_numpy(block) for block in blocks]
    ram, adam = {}, {}
    for way in ("paper", "kit"):
        ram[way] = new_ram(dim, seed=seed)
        adam[way] = torch.optim.Adam(ram[way].parameters(), lr=PAPER_CODE["learning_rate"])
    _, indices = Retriever(R_img).search(v, TOP_K)
    some = papers_retrieval(tensors[0][:BATCH], tensors[2]).numpy()
    assert (some == indices[:BATCH]).mean() > 0.999  # but for ties
    steps = max(pairs // BATCH, 1)
    with tempfile.TemporaryDirectory() as folder:
        files, texts, clip = photo_files(folder, pairs), captions(pairs), random_clip(sizes)
        half = lowered(clip, "bf16")
        seconds = alternate({
            "paper: open and encode": lambda: papers_encoding(clip, files, texts),
            "paper: retrieve and step": lambda: papers_epoch_after_encoding(
                ram["paper"], adam["paper"], tensors, steps),
            "kit: open and encode, fp32": lambda: kit_encoding(clip, files, texts),
            "kit: open and encode, bf16": lambda: kit_encoding(half, files, texts),
            "kit: search": lambda: Retriever(R_img).search(v, TOP_K),
            "kit: an epoch": lambda: train_ram(
                ram["kit"], v, t, R_img, R_txt, indices, seed=seed, epochs=1, progress=False)}, rounds=rounds)
    seconds = {name: np.array(values) for name, values in seconds.items()}
    amounts = {"paper: open and encode": pairs, "paper: retrieve and step": steps * BATCH,
               "kit: open and encode, fp32": pairs, "kit: open and encode, bf16": pairs, "kit: search": n,
               "kit: an epoch": n}
    parts = pd.DataFrame({name: {"pairs": amounts[name], "median s": np.median(values),
                                 "ms a pair": 1e3 * np.median(values) / amounts[name]}
                          for name, values in seconds.items()}).T
    per_pair = {name: values / amounts[name] for name, values in seconds.items()}  # arrays (rounds,)
    paper = n * (per_pair["paper: open and encode"] + per_pair["paper: retrieve and step"])  # an epoch
    rows = {"a further epoch": (paper, seconds["kit: an epoch"])}
    for precision in ("fp32", "bf16"):
        kit = n * per_pair[f"kit: open and encode, {precision}"] + seconds["kit: search"]
        rows[f"whole training, {precision}"] = (EPOCHS * paper, kit + EPOCHS * seconds["kit: an epoch"])
    return parts, pd.DataFrame({name: _ratio(*pair) for name, pair in rows.items()}).T


def _ratio(paper, kit):
    ratios = paper / kit  # both of one round
    return {"paper s": np.median(paper), "kit s": np.median(kit), "ratio": np.median(ratios),
            "ratio min": ratios.min(), "ratio max": ratios.max()}


def steps(*, dim=DIM, count=10, rounds=7, images=2000):
    """Ratios of a step of RAM and of inference: torch's own attention against the folded."""
    v, t, R_img, R_txt = (torch.from_numpy(block) for block in random_features(images, REFERENCES, dim))
    near = papers_retrieval(v, R_img)
    batch = v[:BATCH], R_img[near[:BATCH]], R_txt[near[:BATCH]], t[:BATCH]
    ram, plain = new_ram(dim, seed=0), new_ram(dim, seed=0)
    with torch.inference_mode():
        outputs = [plain(*batch[:3], attend=way)
                   for way in (plain_attention, papers_attention, folded_attention)]
    for output in outputs[1:]:
        assert (output - outputs[0]).abs().max() < 1e-5 * outputs[0].abs().max()
    papers_adam = torch.optim.Adam(plain.parameters(), lr=PAPER_CODE["learning_rate"])
    kit_adam = Adam(ram.parameters())

    def repeat(step, module, adam):
        for _ in range(count):
            step(module, adam, *batch)

    stepping = summary(alternate({
        "paper": lambda: repeat(papers_step, plain, papers_adam),
        "kit": lambda: repeat(kit_step, ram, kit_adam)}, rounds=rounds), "paper", per=count, unit="ms")

    @torch.inference_mode()
    def infer(module, way, size):
        return torch.cat([module(v[start:start + size], R_img[near[start:start + size]],
                                 R_txt[near[start:start + size]], attend=way)
                          for start in range(0, images, size)])

    fresh = RAM(dim)
    ways = {f"plain, batches of {size}": lambda size=size: infer(fresh, plain_attention, size)
            for size in (BATCH, 1000)}
    ways["kit"] = lambda: apply_ram(fresh, v.numpy(), R_img.numpy(), R_txt.numpy(), near.numpy())
    expected = ways[f"plain, batches of {BATCH}"]().numpy()
    assert np.abs(ways["kit"]() - expected).max() < 1e-5 * np.abs(expected).max()
    seconds = alternate(ways, rounds=rounds)
    fastest = min(list(ways)[:-1], key=lambda name: np.median(seconds[name]))  # the plain module at its best
    inference = summary(seconds, fastest, unit="ms")
    return pd.concat({"a step": stepping, "inference": inference}).rename_axis(["job", "way"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--large", action="store_true", help="1.35 million pairs on disk, and nothing else")
    parser.add_argument("--pairs", type=int, default=300, help="pairs that are encoded, default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.large:
        ram_large.report(quick=given.quick)
        return
    small = {"pairs": 20, "rounds": 2, "sizes": SMALL, "n": 300, "m": 100, "dim": 64}
    parts, whole = training(**(small if given.quick else {"pairs": given.pairs, "rounds": given.rounds}))
    print(f"\nmeasured\n{parts.round(3).to_string()}", flush=True)
    print(f"\ncomputed from it, for {small['n'] if given.quick else PAIRS} pairs and {EPOCHS} epochs\n"
          f"{whole.round(2).to_string()}", flush=True)
    stepping = steps(**({"dim": 64, "count": 2, "rounds": 2, "images": 200} if given.quick
                        else {"rounds": given.rounds + 2}))
    print(f"\nmeasured: RAM itself, batches of {BATCH}, k = {TOP_K}\n{stepping.round(2).to_string()}\n")
    if given.quick:
        return
    ratios = whole["ratio"].to_dict() | {
        job: stepping.loc[(job, "kit"), "ratio"] for job in ("a step", "inference")}
    for name, ratio in ratios.items():
        met = "met" if ratio >= GOALS[name] else "missed"
        print(f"{name}: {ratio:.1f} times as fast, goal {GOALS[name]}: {met}")
    tables = {name: table.reset_index().to_dict("records")
              for name, table in (("parts", parts.rename_axis("part")), ("steps", stepping))}
    print(f"\nwritten to {save('ram', whole, **tables, pairs=PAIRS, epochs=EPOCHS, batch=BATCH)}")


if __name__ == "__main__":
    main()
