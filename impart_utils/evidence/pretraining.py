"""Can retrieval replace pretraining? The toy world's CLIP, trained for ever longer, with and without it.

The paper's abstract says that RA-CLIP "enables efficient inference with reduced pretraining data". At the
paper's own scale that can't be tested here or there: its encoders are OpenAI's, trained in full, and frozen.
"""

import dataclasses
import json
import time

import pandas as pd

from impart_utils import cached
from impart_utils.reference import vanilla_features
from impart_utils.sources.files import atomic_path, progress_bar
from impart_utils.zeroshot import accuracy, predict

STEPS = (50, 150, 300, 600)  # of 256 pictures; on two quiet cores some 10, 30, 60 and 120 seconds


def gain_over_training(config, *, steps=STEPS, seed=0, with_ram=True):
    """Accuracy of CLIP, Eq. 1 and RAM where CLIP itself was trained for ever more steps.

    Parameters
    ----------
    config : Config of the demo;  steps : steps of the tiny CLIP's training, each a training of its own whose
        learning-rate schedule runs its whole course
    seed : int, of the tiny CLIP;  with_ram : bool, False leaves the slow part out

    Returns
    -------
    table : DataFrame with steps, seconds (of CLIP's training on this machine), dataset, method, accuracy.
        Trained weights and features are cached.

    Raises
    ------
    ValueError : a profile that isn't the toy world, whose CLIP nobody trains in a minute.
    """
    if not config.is_toy:
        raise ValueError("Expected the demo profile: only the toy world's CLIP can be trained here. "
                         "Run it with profile='demo'.")
    rows = []
    for count in steps:
        path, seconds = _trained_clip(config, count, seed)
        own = dataclasses.replace(config, clip_checkpoint=str(path), allow_unverified_clip=True)
        references, _ = cached.reference_pairs(own)
        for name in own.datasets:
            test = cached.test_set(own, name)
            features = {"CLIP": test.image_features, "RA-CLIP Vanilla": vanilla_features(
                test.image_features, references, top_k=own.top_k, image_weight=own.image_weight,
                text_weight=own.text_weight, scale=own.scale)}
            if with_ram:
                features["RA-CLIP (RAM)"] = cached.ram_features(own, test, scale=cached.ram_scale(own))
            rows += [{"steps": count, "seconds": seconds, "dataset": test.name, "method": method,
                      "accuracy": accuracy(predict(vectors, test.class_features), test.labels)}
                     for method, vectors in features.items()]
    return pd.DataFrame(rows)


def _trained_clip(config, steps, seed):
    """(path of the weights, seconds their training took here); trained once."""
    from impart_utils.toy_world import train_clip

    recipe = train_clip.Recipe(steps=steps)
    path = (config.cache_dir / "pretraining"
            / f"steps{steps}-seed{seed}-{train_clip.recipe_hash(recipe)}.safetensors")
    clock = path.with_suffix(".json")
    if not (path.exists() and clock.exists()):
        started = time.perf_counter()
        model, _ = train_clip.train(recipe, seed=seed, probe_every=0, cache=config.cache_dir / "toy_pictures",
                                    progress=lambda all_steps: progress_bar(
                                        all_steps, description=f"training a CLIP for {steps} steps"))
        seconds = time.perf_counter() - started
        train_clip.save_weights(model, path, recipe=recipe, seed=seed)
        with atomic_path(clock) as temporary:
            temporary.write_text(json.dumps({"seconds": seconds}))
    return path, json.loads(clock.read_text())["seconds"]
