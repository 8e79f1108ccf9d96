"""How fast pictures and texts become features, against the one-at-a-time way of the paper's code.

    python benchmarks/encoding.py [--quick] [--device cuda] [--rounds 5] [--pictures 192]
    python benchmarks/encoding.py --memory [--quick]

A full-size ViT-B/32 with random weights (its speed doesn't depend on them), JPEG files of 500 x 375 pixels
made here, captions of YFCC (those of shared/data/metadata/yfcc1k.csv where it lies beside the clone). The
ways run in turns in one process; a ratio is baseline / way in the same round. Shares are of the rate of a
2048² matrix product in the same precision, measured in the same round. --memory: peak memory at 1,000 and
20,000 pictures, with real decoding and a stub in CLIP's place. Writes encoding.json, encoding_memory.json.
"""

import argparse
import contextlib
import io
import itertools
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from encoding_inputs import CSV, DTYPES, SMALL, VIT_B32, gflop_per_picture, lowered, photo_files, random_clip
from encoding_inputs import captions as some_captions
from timing import alternate, matmul_rate, save, summary

TARGETS = {  # on a CPU; (table, way): (least ratio to one at a time, least share of the product's rate)
    ("prepared pictures", "batches fp32"): (1.8, 0.70), ("prepared pictures", "batches bf16"): (6.0, 0.45),
    ("JPEG files", "batches fp32, 0 workers"): (1.8, 0.60), ("texts", "batches fp32"): (2.5, None),
    ("reference pairs", "batches fp32"): (1.8, None), ("reference pairs", "batches bf16"): (4.0, None)}
BASELINE_SHARE = 0.35  # the baseline itself must be no straw man
KEYS = itertools.count()


# ---- The ways ------------------------------------------------------------------------------------------


def pictures_one_at_a_time(clip, paths):
    """The paper's code: open, preprocess and encode one picture after the other."""
    import torch
    from PIL import Image

    with torch.no_grad():
        return torch.cat([clip.model.encode_image(clip.preprocess(Image.open(path))[None].to(clip.device))
                          for path in paths]).float().cpu().numpy()


def pixels_one_at_a_time(clip, pixels):
    """The encoder alone, one picture of (n, 3, h, w) after the other."""
    import torch

    with torch.no_grad():
        return torch.cat([clip.model.encode_image(pixels[row:row + 1]) for row in range(len(pixels))])


def texts_one_at_a_time(clip, texts):
    """The paper's code: each caption on all 77 tokens."""
    import torch

    from impart_utils.sources.checkpoints import import_clip

    with torch.no_grad():
        return torch.cat([clip.model.encode_text(import_clip().tokenize(text, truncate=True).to(clip.device))
                          for text in texts]).float().cpu().numpy()


def pictures_by_the_kit(clip, paths, *, workers, cache):
    """Files -> features as the notebooks do it: `encode_to_cache`, shards written."""
    from impart_utils.sources.features import encode_to_cache
    from impart_utils.sources.pictures_io import open_picture

    items = [(str(row), partial(open_picture, path)) for row, path in enumerate(paths)]
    with contextlib.redirect_stdout(io.StringIO()):  # progress
        features, _, _ = encode_to_cache(clip.encode_images, items, cache, key=str(next(KEYS)),
                                         prepare=clip.prepare, workers=workers,
                                         batch_size=64 if clip.device == "cpu" else 256)
    return features


def tables_of_ways(clip, paths, captions, cache, *, precisions, workers=(0, 1, 2)):
    """Table -> (names of ways -> function, items in one job); the first way is the baseline."""
    import torch

    from impart_utils.sources.pictures_io import open_picture

    clips = {precision: lowered(clip, precision) for precision in precisions}
    base = clips[precisions[0]]  # what the paper's code has there: fp32 on a CPU, fp16 on a GPU
    prepared = [clip.prepare(open_picture(path)) for path in paths]
    pixels, few = base._pixels(prepared), len(paths) // 3 or 1
    one = f"one at a time {precisions[0]}"

    def pairs(model):
        pictures_by_the_kit(model, paths[:few], workers=0, cache=cache)
        model.encode_texts(captions[:few])

    def pairs_one_at_a_time():
        for path, caption in zip(paths[:few], captions, strict=False):
            pictures_one_at_a_time(base, [path])
            texts_one_at_a_time(base, [caption])

    synchronize = torch.cuda.synchronize if clip.device != "cpu" else (lambda: None)
    return {
        "prepared pictures": ({
            one: lambda: (pixels_one_at_a_time(base, pixels), synchronize()),
            **{f"batches {name}": partial(model.encode_images, prepared) for name, model in clips.items()},
        }, len(paths)),
        "JPEG files": ({
            one: partial(pictures_one_at_a_time, base, paths),
            **{f"batches {name}, {'automatic' if count is None else count} workers":
               partial(pictures_by_the_kit, model, paths, workers=count, cache=cache)
               for name, model in clips.items() for count in workers},
        }, len(paths)),
        "texts": ({one: partial(texts_one_at_a_time, base, captions),
                   **{f"batches {name}": partial(model.encode_texts, captions)
                      for name, model in clips.items()}}, len(captions)),
        "reference pairs": ({one: pairs_one_at_a_time,
                             **{f"batches {name}": partial(pairs, model) for name, model in clips.items()}},
                            few)}


# ---- Measuring -----------------------------------------------------------------------------------------


def measure(ways, count, *, rounds, device="cpu", precisions, seconds=0.5, size=2048, gflop=None):
    """`timing.summary` of ways in ms an item, with items/s and, where `gflop` per item is given, shares.

    The rate of a matrix product (`timing.matmul_rate` of `size` and `seconds`) is measured once a round for
    each precision, as one of the ways.
    """
    rates = {precision: [] for precision in precisions}

    def take_rates():
        for precision, found in rates.items():
            found.append(matmul_rate(DTYPES[precision], size=size, seconds=seconds, device=device))

    measured = alternate({"rates": take_rates, **ways} if gflop else ways, rounds=rounds)
    measured.pop("rates", None)
    table = summary(measured, next(iter(ways)), per=count, unit="ms")
    table.insert(0, "items/s", 1e3 / table["median ms"])
    if gflop:
        for name, way in measured.items():
            rate = np.array(next(rates[precision] for precision in precisions if precision in name)[-rounds:])
            shares = gflop[0] * count / np.array(way) / rate
            done = gflop[0] if name.startswith("one") else gflop[1]
            table.loc[name, ["rate GFLOP/s", "share", "share min", "share max", "share of done work"]] = (
                np.median(rate), np.median(shares), shares.min(), shares.max(),
                np.median(shares) * done / gflop[0])
    return table


def verdicts(tables):
    """A line per target: met or missed, with the figure; a missing way gives none.

    Of the two shares the smaller one counts: that of the work which is done.
    """
    lines = []
    for (title, way), (ratio, share) in TARGETS.items():
        if title in tables and way in tables[title].index:
            row = tables[title].loc[way]
            checks = [("times one at a time", row["ratio"], ratio)]
            checks += [("of the rate", row["share of done work"], share)] if share else []
            lines += [f"{title}, {way}: {found:.2f} {what}, target {target:.2f}: "
                      f"{'met' if found >= target else 'missed'}" for what, found, target in checks]
    base = tables["prepared pictures"].iloc[0]["share"]
    lines.append(f"prepared pictures, baseline: {base:.2f} of the rate, at least {BASELINE_SHARE:.2f} "
                 f"wanted: {'met' if base >= BASELINE_SHARE else 'missed'}")
    return lines


def main_speed(options):
    clip = random_clip(SMALL if options.quick else VIT_B32, device=options.device)
    precisions = ("fp32", "bf16") if options.device == "cpu" else ("fp16", "bf16")
    count = 6 if options.quick else options.pictures or (192 if options.device == "cpu" else 4096)
    rounds = 2 if options.quick else options.rounds
    gflop, captions, tables = gflop_per_picture(clip.model.visual), some_captions(count), {}
    print(f"A picture takes {gflop[0]:.2f} GFLOP in CLIP's own forward pass and {gflop[1]:.2f} in ours, "
          "which computes the last block for the class token alone.\nA share counts the former for all, "
          "'share of done work' what is computed.")
    with tempfile.TemporaryDirectory() as folder:
        every = tables_of_ways(clip, photo_files(folder, count), captions, Path(folder) / "cache",
                               precisions=precisions,
                               workers=(0, 1, 2) if options.device == "cpu" else (0, 8, None))
        for title, (ways, items) in every.items():
            tables[title] = measure(
                ways, items, rounds=rounds, device=options.device, precisions=precisions,
                seconds=0.05 if options.quick else 0.5,
                gflop=gflop if title in ("prepared pictures", "JPEG files") else None)
            print(f"\n{title} ({items} a job, {rounds} rounds)")
            print(tables[title].round(2).to_string(), flush=True)
    lines = verdicts(tables) if options.device == "cpu" else []
    if options.quick:
        print("\nA small model says nothing on the targets.")
    else:
        print("\n" + "\n".join(lines))
        rows = [{"table": title, "way": way, **row} for title, table in tables.items()
                for way, row in table.to_dict("index").items()]
        lengths = [len(caption.split()) for caption in captions]
        print(save("encoding", rows, gflop=gflop, verdicts=lines, pictures=count, rounds=rounds,
                   device=options.device, captions="YFCC" if CSV.is_file() else "made up",
                   words={"mean": float(np.mean(lengths)), "max": max(lengths)}))


# ---- Memory --------------------------------------------------------------------------------------------


def peak_memory(count, workers, folder):
    """Encode `count` pictures with a stub in CLIP's place; peak megabytes here and in a worker (Linux)."""
    import resource

    from impart_utils.clip_model import prepare_picture
    from impart_utils.sources.checkpoints import import_clip
    from impart_utils.sources.features import encode_to_cache
    from impart_utils.sources.pictures_io import open_picture

    paths = itertools.cycle(sorted(Path(folder).glob("*.jpg")))
    items = [(f"{row:06d}", partial(open_picture, next(paths))) for row in range(count)]
    prepare = partial(prepare_picture, import_clip().clip._transform(224).transforms[:2])
    features, _, _ = encode_to_cache(
        lambda batch: np.stack([picture.reshape(-1)[:512] for picture in batch]), items,
        Path(folder) / "cache", key=f"{count} {workers}", prepare=prepare, workers=workers)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"pictures": count, "workers": workers, "peak MB": int(status["VmHWM"].split()[0]) / 1024,
            "of these the features": features.nbytes / 2**20,
            "peak MB of a worker": children / 1024 if workers else 0.0}


def main_memory(options):
    import pandas as pd

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photo_files(folder, 64)
        for workers, count in itertools.product((0, 2), (100, 400) if options.quick else (1000, 20_000)):
            done = subprocess.run([sys.executable, __file__, "--child", str(count), str(workers), folder],
                                  capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    table = pd.DataFrame(rows)
    print(table.round(1).to_string(index=False))
    for workers, part in table.groupby("workers"):
        few, many = part.iloc[0], part.iloc[-1]
        grown, features = (many[name] - few[name] for name in ("peak MB", "of these the features"))
        print(f"{workers} workers: from {few['pictures']:,.0f} to {many['pictures']:,.0f} pictures "
              f"{grown:+.1f} MB, without the features themselves {grown - features:+.1f} MB")
    if not options.quick:
        print(save("encoding_memory", rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small model, few pictures, nothing written")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, help="in one job; default: 192, on a GPU 4096")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        count, workers, folder = options.child
        print("\n" + json.dumps(peak_memory(int(count), int(workers), folder)))
    elif options.memory:
        main_memory(options)
    else:
        main_speed(options)


if __name__ == "__main__":
    main()
