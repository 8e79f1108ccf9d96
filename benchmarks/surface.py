"""How long does a whole surface of Eq. 1 take: 12 k x 21 x 21 weights, 10,000 queries, 1000 references?

    python benchmarks/surface.py [--quick]

Three ways, in milliseconds per setting (k, w_img, w_txt): Eq. 1 and `predict` anew for each setting (on a
sample of settings); the sum of three score matrices that lie ready, in one piece (on the same sample); and
`evidence.surface`, all 5292 settings in one call. The counts of the sample must be equal. Writes
benchmarks/surface.json. The features are made up: 100 classes in 512 dimensions.
"""

import argparse
import time

import numpy as np
import timing

from impart_utils.evidence.surface import TOP_KS, WEIGHTS, surface_counts
from impart_utils.retrieval import Retriever
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import predict, unit

DIRECT, MATRICES, SURFACE = "Eq. 1 and predict per setting", "three matrices per setting", "evidence.surface"
SAMPLE = 12  # settings that the first two ways are timed on


def made_up(queries, references, *, classes=100, dim=512, seed=0):
    """Queries with labels, class features, reference pictures and captions: float32, unit rows."""
    rng = np.random.default_rng(seed)
    W = unit(rng.standard_normal((classes, dim)).astype(np.float32))

    def around(labels, noise):
        spread = rng.standard_normal((len(labels), dim)).astype(np.float32) / dim**0.5
        return unit(W[labels] + noise * spread)

    labels, own = rng.integers(0, classes, queries), rng.integers(0, classes, references)
    return around(labels, 7.0), labels, W, around(own, 5.0), around(own, 5.0)


def per_setting(world, indices, settings):
    """The two slower ways as functions of no arguments; each returns the counts of right queries."""
    v, labels, W, R_img, R_txt = world

    def direct():
        return [int((predict(augment_fused(v, indices[:, :k], R_img, R_txt, image_weight=a, text_weight=b), W)
                     == labels).sum()) for k, a, b in settings]

    picture_scores, caption_scores, query = R_img @ W.T, R_txt @ W.T, v @ W.T
    ready = {k: [table[indices[:, :k]].mean(axis=1) for table in (picture_scores, caption_scores)]
             for k in {k for k, _, _ in settings}}

    def matrices():
        return [int(((query + a * ready[k][0] + b * ready[k][1]).argmax(axis=1) == labels).sum())
                for k, a, b in settings]

    return direct, matrices


def run(queries=10_000, references=1000, *, rounds=5, top_ks=TOP_KS, weights=WEIGHTS, sample=SAMPLE):
    """(table of seconds per setting, seconds of the whole surface, settings in it)."""
    world = made_up(queries, references)
    v, labels, W, R_img, R_txt = world
    retriever = Retriever(R_img, backend="torch")
    retriever.search(v[:2], 1)  # imports torch
    started = time.perf_counter()
    _, indices = retriever.search(v, top_ks[-1])
    search = time.perf_counter() - started
    rng = np.random.default_rng(1)
    settings = [(int(rng.choice(top_ks)), float(rng.choice(weights)), float(rng.choice(weights)))
                for _ in range(sample)]
    direct, matrices = per_setting(world, indices, settings)
    whole = len(top_ks) * len(weights) ** 2
    options = {"top_ks": top_ks, "image_weights": weights, "text_weights": weights}

    def surface():
        return surface_counts(v, labels, W, R_img, R_txt, indices, **options)

    found = surface()
    from_surface = [int(found[top_ks.index(k), weights.index(a), weights.index(b)]) for k, a, b in settings]
    if np.abs(np.subtract(direct(), from_surface)).max() > 2:  # two classes may be within rounding
        raise AssertionError(f"the ways differ: {direct()} and {from_surface}")
    seconds = timing.alternate({DIRECT: direct, MATRICES: matrices, SURFACE: surface}, rounds=rounds)
    total = float(np.median(seconds[SURFACE]))
    each = {name: [value / (whole if name == SURFACE else sample) for value in values]
            for name, values in seconds.items()}
    return timing.summary(each, DIRECT, unit="ms"), total, whole, search


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    if parser.parse_args().quick:
        table, total, whole, search = run(500, 100, rounds=2, top_ks=TOP_KS[:8], weights=WEIGHTS[::5])
    else:
        table, total, whole, search = run()
    print(table.round(3).to_string())
    print(f"\nall {whole} settings: {total:.1f} s, after {search:.1f} s for the neighbors")
    print(f"one by one that would be {table.loc[DIRECT, 'median ms'] * whole / 1000:.0f} s")
    if not parser.parse_args().quick:
        timing.save("surface", {"settings": whole, "surface_seconds": total, "search_seconds": search,
                                "ms_per_setting": table.to_dict("index")})


if __name__ == "__main__":
    main()
