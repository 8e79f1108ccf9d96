"""Bootstrap over clusters for many numbers at once, all from the same draws: no loop over resamples."""

import numpy as np

RESAMPLES = 2000


def mean_row(name, values, counts):
    """A row for the mean of values (n,) with the interval from `draw_counts`' (resamples, n)."""
    values = np.asarray(values, dtype=np.float64)
    low, high = np.percentile(counts @ values / counts.sum(axis=1), [2.5, 97.5])
    return {"metric": name, "value": float(values.mean()), "low": float(low), "high": float(high),
            "n": len(values)}


def draw_counts(clusters, *, seed=0, resamples=RESAMPLES):
    """How often each item is drawn in bootstrap resamples of whole clusters: float32 (resamples, n).

    All numbers of a table come from the same draws. Where all items are of one cluster, items are drawn:
    the interval is then too narrow if they resemble each other.
    """
    labels, which = np.unique(np.asarray(clusters), return_inverse=True)
    if len(labels) == 1:
        labels, which = which, np.arange(len(which))
    drawn = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)),
                                                    size=resamples)
    return drawn[:, which].astype(np.float32)


def resampled_medians(values, counts):
    """Median of each resample: (n,), (resamples, n) -> (resamples,)."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(counts[:, order], axis=1)  # (resamples, n)
    size = total[:, -1:]
    low, high = (values[order][(total >= place).argmax(axis=1)]
                 for place in (np.floor((size + 1) / 2), np.ceil((size + 1) / 2)))
    return (low + high) / 2
