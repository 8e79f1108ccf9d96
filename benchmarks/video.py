"""A film's features from end to end: the paper's code's way, the kit's, and what the shortcuts change.

    python benchmarks/video.py [--quick]

A film of 20 s, 640 x 360, 25 frames a second, made here; ViT-B/32 of full size with random weights. The
paper's code writes every sixth frame as a JPEG file with OpenCV, opens the files again and encodes them one
at a time. OpenCV is no dependency of the kit, so its part is played by PyAV and Pillow: the same frames, the
same quality (95, 4:2:0). OpenCV also converts the frames to BGR that are then dropped; that isn't done here
and speaks for the baseline. All ways encode the same 84 frames. Besides: how far JPEG files, the decoder's
scaler and bf16 move the features, with random weights and with the trained tiny CLIP, and the peak memory for
a film of 20 s and one ten times as long. Writes benchmarks/video.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timing import alternate, save, summary

from impart_utils.clip_model import Clip, load_clip
from impart_utils.clip_towers import lower_precision
from impart_utils.sources.checkpoints import import_clip
from impart_utils.toy_world.films import make_films
from impart_utils.video import encode_film, sample_frames

PAPERS_WAY = "paper's code"
SIZE, RATE = (640, 360), 25


def make_film(path, seconds, size=SIZE, seed=0):
    """A film with motion, texture and a cut every two seconds: H.264, 25 frames a second."""
    import av

    rng, (width, height) = np.random.default_rng(seed), size
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        for number in range(round(seconds * RATE)):
            if number % (2 * RATE) == 0:
                waves, grain = rng.uniform(0.01, 0.08, (3, 2)), rng.normal(0, 12, (height, width))
            shift = 2 * number
            frame = [127 + 90 * np.sin(a * (rows + shift) + b * (columns - shift)) for a, b in waves]
            frame = np.stack(frame, axis=-1) + np.roll(grain, shift, axis=1)[..., None]
            picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def random_clip(seed=0):
    """A `Clip` of ViT-B/32's size whose weights are random: as fast as the real one, without its file."""
    clip = import_clip()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = clip.model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).eval()
    return Clip("ViT-B/32", "random", 512, "", model, clip.clip._transform(224), "cpu", "fp32")


def in_bf16(clip):
    model = deepcopy(clip.model)
    lower_precision(model, torch.bfloat16)
    return replace(clip, model=model, precision="bf16")


def papers_way(clip, path):
    """Features (f, d) by way of JPEG files, one picture at a time."""
    features = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, picture) in enumerate(sample_frames(path, protocol="paper_code")):
            picture.save(Path(folder) / f"{number:05d}.jpg", quality=95, subsampling="4:2:0")
        for file in sorted(Path(folder).iterdir()):
            with torch.no_grad(), Image.open(file) as picture:
                features.append(clip.model.encode_image(clip.preprocess(picture)[None]))
    return torch.cat(features).numpy()


def kit_way(clip, path, resize="clip"):
    """Features (f, d) of the same frames by the kit."""
    side = clip.model.visual.input_resolution
    film = encode_film(clip.encode_images, path, protocol="paper_code", resize=resize, side=side)
    return film.frame_features


def deviation(features, exact):
    """How far features are from the exact ones, frame by frame: cosines and relative distance."""
    cosine = (features * exact).sum(axis=1) / np.linalg.norm(features, axis=1) / np.linalg.norm(exact, axis=1)
    distance = np.linalg.norm(features - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {"mean cosine": float(cosine.mean()), "least cosine": float(cosine.min()),
            "mean distance": float(distance.mean()), "frames": len(cosine)}


def speed(clip, path, rounds=5):
    """Seconds a film by each way, and the ratio to the paper's."""
    half = in_bf16(clip)
    ways = {PAPERS_WAY: lambda: papers_way(clip, path), "kit, fp32": lambda: kit_way(clip, path),
            "kit, fp32, decoder's scaler": lambda: kit_way(clip, path, "decoder"),
            "kit, bf16": lambda: kit_way(half, path),
            "kit, bf16, decoder's scaler": lambda: kit_way(half, path, "decoder"),
            "frames alone (kit)": lambda: frames_alone(clip, path),
            "frames alone, decoder's scaler": lambda: frames_alone(clip, path, side=224)}
    return summary(alternate(ways, rounds=rounds), PAPERS_WAY)


def frames_alone(clip, path, side=None):
    """Decode and preprocess, without the model: what no faster model can save."""
    for _, picture in sample_frames(path, protocol="paper_code", side=side):
        clip.prepare(picture)


def deviations(clip, path):
    """What each shortcut does to features: random ViT-B/32 on the film, tiny CLIP on a toy film."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        toy = make_films(Path(folder))[0].path
        for model, film in ((clip, path), (load_clip("tiny", device="cpu"), toy)):
            exact, weights = kit_way(model, film), f"{model.name}, {model.provenance}"
            for name, features in (("JPEG files (paper's code)", papers_way(model, film)),
                                   ("decoder's scaler", kit_way(model, film, "decoder")),
                                   ("bf16", kit_way(in_bf16(model), film))):
                rows.append({"weights": weights, "change": name, **deviation(features, exact)})
    return pd.DataFrame(rows)


def peak_memory(path):
    """Peak memory in MB of a process that decodes and batches a film; the encoder is a stub. Linux only."""
    code = ("import sys, numpy as np; from impart_utils.video import encode_film\n"
            "film = encode_film(lambda pictures: np.ones((len(pictures), 512)), sys.argv[1])\n"
            "peak = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
            "print(len(film.timestamps), int(peak[0]) / 1024)")  # ru_maxrss would count the parent's, too
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    frames, megabytes = done.stdout.split()
    return {"frames": int(frames), "peak MB": float(megabytes)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs; writes nothing")
    quick = parser.parse_args().quick
    clip = load_clip("tiny", device="cpu") if quick else random_clip()
    seconds, size = (2, (160, 90)) if quick else (20, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        film = make_film(Path(folder) / "film.mp4", seconds, size)
        table = speed(clip, film, rounds=2 if quick else 5)
        print(table.round(2).to_string(), flush=True)
        moved = deviations(clip, film)
        print(f"\n{moved.round(6).to_string(index=False)}", flush=True)
        memory = [{"seconds": length, **peak_memory(make_film(Path(folder) / f"{length}.mp4", length, size))}
                  for length in (seconds, 10 * seconds)]
        print(f"\n{pd.DataFrame(memory).round(0).to_string(index=False)}")
    if not quick:
        rows = json.loads(moved.to_json(orient="records"))
        print(f"\nwritten to {save('video', table, deviations=rows, memory=memory)}")


if __name__ == "__main__":
    main()
