"""What benchmarks of encoding encode, and by what: photo-like files, captions, a CLIP of random weights."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from impart_utils.clip_model import Clip
from impart_utils.clip_towers import lower_precision
from impart_utils.sources import metadata
from impart_utils.sources.checkpoints import import_clip

CSV = Path(__file__).resolve().parents[2] / "shared" / "data" / "metadata" / "yfcc1k.csv"
VIT_B32 = (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)  # clip.model.CLIP's arguments
SMALL = (64, 64, 2, 128, 16, 77, 49408, 128, 2, 2)        # for --quick and the tests
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def photo(seed, size=(500, 375)):
    """A picture that costs a JPEG decoder about as much as a photo: soft colors, edges, grain."""
    rng = np.random.default_rng(seed)
    (w, h), pixels = size, rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y, r = rng.integers(0, w), rng.integers(0, h), rng.integers(8, 90)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape([x - r, y - 0.7 * r, x + r, y + 0.7 * r], fill=tuple(map(int, rng.integers(0, 256, 3))))
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    return Image.fromarray((pixels + rng.normal(0, 7, (h, w, 3))).clip(0, 255).astype(np.uint8))


def photo_files(folder, count):
    """Paths of `count` JPEG files in `folder`; at most 64 are different."""
    paths = [Path(folder) / f"{number:03d}.jpg" for number in range(min(count, 64))]
    for seed, path in enumerate(paths):
        photo(seed).save(path, quality=85)
    return list(itertools.islice(itertools.cycle(paths), count))


def captions(count, seed=0):
    """Captions of the paper's metadata, or made-up ones of about the same lengths."""
    rng = np.random.default_rng(seed)
    if CSV.is_file():
        table = metadata.captions(metadata.read_metadata(CSV))
        usable = list(table["caption"][table["reason"] == ""])
        return [usable[row] for row in rng.integers(0, len(usable), count)]
    words = np.array("a the of in my our old red boat house river friends summer evening from with".split())
    lengths = rng.lognormal(2.4, 0.8, count).clip(1, 70).astype(int)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def random_clip(arguments=VIT_B32, *, device="cpu"):
    """A `Clip` with random weights in fp32."""
    clip = import_clip()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = clip.model.CLIP(*arguments).float().eval().to(device)
    return Clip("random", "random weights", arguments[0], "random", model,
                clip.clip._transform(arguments[1]), device, "fp32")


def lowered(clip, precision):
    """A copy of an fp32 `Clip` in another precision."""
    model = copy.deepcopy(clip.model)
    if precision != "fp32":
        lower_precision(model, DTYPES[precision])
    return replace(clip, model=model, precision=precision)


def gflop_per_picture(visual):
    """(of CLIP's own forward pass, of what `clip_towers` computes), in GFLOP: 2 per multiply and add."""
    patch = visual.conv1.kernel_size[0]
    n, w = visual.positional_embedding.shape  # class token and patches
    patches = (n - 1) * 3 * patch**2 * w
    block = 12 * n * w**2 + 2 * n**2 * w  # queries, keys, values 3, output 1, MLP 8; then the attention
    spared = (n - 1) * 10 * w**2 + 2 * (n**2 - n) * w  # last block: queries, output, MLP of all but one row
    whole = patches + len(visual.transformer.resblocks) * block + w * visual.proj.shape[1]
    return 2 * whole / 1e9, 2 * (whole - spared) / 1e9
