"""Is the toy world built so that the method wins? Notebook 04's comparison in five other worlds.

    python benchmarks/worlds.py [--seeds 1 2 3 4 5]

Another world seed is another draw of everything: pairs, captions, test pictures, class sizes. The tiny
CLIP stays the shipped one. Prints Vanilla - CLIP and Vanilla - random neighbors for each world and test
set, then sign and range, and writes them to benchmarks/worlds.json. The weights are the paper's code's;
nothing is tuned.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from impart_utils.clip_model import load_clip
from impart_utils.evidence.controls import random_neighbors
from impart_utils.retrieval import Retriever
from impart_utils.sources.features import atomic_path, file_hash
from impart_utils.toy_world import scenes, train_clip
from impart_utils.vanilla import augment
from impart_utils.zeroshot import accuracy, class_features, predict, unit

REFERENCES, PAIRS, TOP_K, IMAGE_WEIGHT, TEXT_WEIGHT = 1000, 10_000, 8, 0.5, 0.05
RANDOM_DRAWS = 5  # of random neighbors, averaged
OUT = Path(__file__).with_suffix(".json")


def one_world(clip, seed):
    """Rows of test set and accuracies of CLIP, Vanilla and random neighbors in the world of `seed`."""
    pairs = scenes.pairs(PAIRS, seed)
    drawn = np.random.default_rng(seed).permutation(PAIRS)[:REFERENCES]
    references = [pairs[row] for row in drawn]
    R_img = train_clip.encode_pictures(clip.model, scenes.pictures([pair.scene for pair in references]))
    R_txt = unit(clip.encode_texts([pair.caption for pair in references]))  # (m, d)
    return [{"world": seed, "dataset": name, **compare(clip, scenes.test_set(name, seed), R_img, R_txt)}
            for name in scenes.CLASS_NAMES]


def compare(clip, test, R_img, R_txt):
    """Number of pictures and accuracies on one test set."""
    v = train_clip.encode_pictures(clip.model, scenes.pictures(test.scenes))  # (n, d), unit
    W = class_features(clip.encode_texts, test.class_names)                   # (c, d), unit

    def score(indices):  # (n, k)
        augmented = augment(v, R_img[indices], R_txt[indices], image_weight=IMAGE_WEIGHT,
                            text_weight=TEXT_WEIGHT)
        return accuracy(predict(augmented, W), test.labels)

    _, nearest = Retriever(R_img).search(v, TOP_K)
    draws = [random_neighbors(len(v), REFERENCES, TOP_K, seed=draw) for draw in range(RANDOM_DRAWS)]
    return {"n": len(v), "CLIP": accuracy(predict(v, W), test.labels), "RA-CLIP Vanilla": score(nearest),
            "random neighbors": float(np.mean([score(indices) for indices in draws]))}


def summarize(rows):
    """Per test set and difference: mean, lowest, highest, and in how many worlds it is above zero."""
    summary = []
    for name in scenes.CLASS_NAMES:
        for other in ("CLIP", "random neighbors"):
            differences = [row["RA-CLIP Vanilla"] - row[other] for row in rows if row["dataset"] == name]
            summary.append({
                "dataset": name, "difference": f"Vanilla - {other}", "mean": float(np.mean(differences)),
                "low": min(differences), "high": max(differences), "worlds": len(differences),
                "above_zero": sum(difference > 0 for difference in differences)})
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    options = parser.parse_args()
    clip, rows = load_clip("tiny", device="cpu"), []
    print(f"{'world':<7}{'test set':<10}{'n':>6}{'CLIP':>8}{'Vanilla':>9}{'random':>8}"
          f"{'V - CLIP':>10}{'V - random':>12}")
    for seed in options.seeds:
        for row in one_world(clip, seed):
            rows.append(row)
            plain, vanilla, chance = row["CLIP"], row["RA-CLIP Vanilla"], row["random neighbors"]
            print(f"{row['world']:<7}{row['dataset']:<10}{row['n']:>6}{plain:>8.1%}{vanilla:>9.1%}{chance:>8.1%}"
                  f"{100 * (vanilla - plain):>+10.2f}{100 * (vanilla - chance):>+12.2f}", flush=True)
    summary = summarize(rows)
    print("\nin points, over the worlds")
    for line in summary:
        print(f"{line['dataset']:<8}{line['difference']:<28}mean {100 * line['mean']:+.2f}, "
              f"from {100 * line['low']:+.2f} to {100 * line['high']:+.2f}, "
              f"above zero in {line['above_zero']} of {line['worlds']}")
    settings = {"references": REFERENCES, "pairs": PAIRS, "top_k": TOP_K, "image_weight": IMAGE_WEIGHT,
                "text_weight": TEXT_WEIGHT, "scale": "unit", "random_draws": RANDOM_DRAWS,
                "weights": file_hash(train_clip.tiny_clip_path())[:16]}
    result = {"settings": settings, "summary": summary, "rows": rows}
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
