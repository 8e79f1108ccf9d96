"""Does retrieval help? Better than CLIP and better than the best control, tuned alike (DESIGN.md, §6.4)."""

import numpy as np

from impart_utils.evidence.controls import control_scores
from impart_utils.evidence.eq1 import eq1
from impart_utils.evidence.significance import mcnemar
from impart_utils.evidence.surface import TOP_KS
from impart_utils.evidence.tuning import require_disjoint, tune
from impart_utils.retrieval import Retriever
from impart_utils.sources.workers import side_by_side
from impart_utils.zeroshot import predict

# captions alone and pictures alone are parts of Eq. 1, so its weights already choose between them
FAIR = ("random neighbors", "shuffled captions", "mean of all references")


def retrieval_helps(tuning, test, reference_image_features, reference_text_features, *, fair=FAIR, seed=0,
                    scale="unit", alpha=0.05, **grid):
    """Eq. 1 against CLIP and against the best of several controls, k and weights of each tuned on one split.

    Parameters
    ----------
    tuning, test : tuning.Labelled, of these roles and without a picture in common
    reference_…_features : arrays (m, d), as the encoder gave them
    fair : names of `controls.CONTROLS`;  seed : int, of the controls;  scale : see `reference.scaled`
    alpha : float, for each of the two tests (both must hold, so no correction is due)
    **grid : top_ks, image_weights, text_weights of `tuning.tune`

    Returns
    -------
    row : dict with method, clip, best_control (its name: that with most right on the *test* pictures, the
        hardest opponent), control (its accuracy), n, p_clip and p_control (McNemar), helps (bool)
    """
    require_disjoint(tuning, test)
    R_img, R_txt = reference_image_features, reference_text_features

    most = min(max(grid.get("top_ks", TOP_KS)), len(R_img))
    before, after = (Retriever(R_img).search(split.image_features, most)[1] for split in (tuning, test))

    def right(control):
        settings = tune(tuning, R_img, R_txt, control=control, neighbor_indices=before, seed=seed,
                        scale=scale, **grid).settings
        given = (test.image_features, R_img, R_txt, test.class_features, after)
        scores = (eq1(*given, scale=scale, **settings) if control is None
                  else control_scores(control, *given, seed=seed, scale=scale, **settings))
        return scores.argmax(axis=1) == test.labels

    method, *by_control = side_by_side(right, (None, *fair))
    by_control = dict(zip(fair, by_control, strict=True))
    best = max(by_control, key=lambda control: by_control[control].sum())
    plain = predict(test.image_features, test.class_features) == test.labels
    tests = {"clip": mcnemar(plain, method), "control": mcnemar(by_control[best], method)}
    return {"method": float(np.mean(method)), "clip": float(np.mean(plain)), "best_control": best,
            "control": float(np.mean(by_control[best])), "n": len(test.labels), "p_clip": tests["clip"].p,
            "p_control": tests["control"].p,
            "helps": all(found.c > found.b and found.p < alpha for found in tests.values())}
