"""Film to film, fewer frames, within movies: by hand, by brute force, and against the sampler."""

from itertools import permutations

import numpy as np
import pytest

from impart_utils.evidence import metrics
from impart_utils.evidence.film_protocols import (
    expected_precision,
    film_to_film,
    rate_table,
    thin,
    within_movies,
)
from impart_utils.evidence.film_variants import FilmQueries


@pytest.mark.parametrize(("relevant", "n"), [(1, 1), (1, 5), (2, 5), (3, 6), (6, 6)])
def test_expected_precision_is_the_mean_over_all_orders(relevant, n):
    hits = np.arange(n) < relevant
    every = [metrics.average_precision(np.array(order, float), hits) for order in permutations(range(n))]
    assert expected_precision(relevant, n) == pytest.approx(np.mean(every))
    assert expected_precision(relevant, n) >= relevant / n - 1e-12


def test_expected_precision_needs_something_to_find():
    with pytest.raises(ValueError, match="relevant=0 and n=4"):
        expected_precision(0, 4)


def test_film_to_film_worked_by_hand():
    angles = np.radians([0, 10, 90, 80, 45])
    films = [np.tile([np.cos(a), np.sin(a)], (3, 1)) for a in angles]
    def by_mean(films):
        table = film_to_film(films, ["A", "A", "B", "B", "C"], poolings=("mean_raw",))
        return table.set_index(["variant", "metric"])

    table = by_mean(films)
    # C is alone and no query, but stands in the way of nobody here: each finds its sibling first
    assert table.loc[("CLIP", "right movie at 1"), "value"] == 1 and table.loc[("CLIP", "mAP"), "value"] == 1
    assert set(table["n"]) == {4}
    assert table.loc[("chance", "right movie at 1"), "value"] == pytest.approx(1 / 4)
    assert table.loc[("chance", "mAP"), "value"] == pytest.approx(np.mean(1 / np.arange(1, 5)))
    near = [films[0], films[2], films[1], films[3], films[4]]  # siblings now 90 degrees and 70 degrees apart
    worse = by_mean(near)
    assert worse.loc[("CLIP", "right movie at 1"), "value"] == 0
    # siblings come fourth for 0 and 90 degrees, third for 10 and 80 (before them the other's one and C)
    assert worse.loc[("CLIP", "mAP"), "value"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 3 + 1 / 3) / 4)


def test_film_to_film_ignores_the_film_itself_and_counts_ties_against_it():
    table = film_to_film([np.ones((2, 3))] * 6, list("AABBCC")).set_index(["pooling", "metric"])
    assert table.loc[("mean_raw", "right movie at 1"), "value"] == 0
    assert table.loc[("mean_raw", "mAP"), "value"] == pytest.approx(1 / 5)
    with pytest.raises(ValueError, match="got 1 movies of 3 films"):
        film_to_film([np.ones((1, 2))] * 3, list("AAA"))
    with pytest.raises(ValueError, match="got 2 movies of 2 films"):
        film_to_film([np.ones((1, 2))] * 2, list("AB"))


@pytest.mark.parametrize("rate", [0.25, 0.5, 1, 2, 4])
def test_thinned_frames_are_those_the_sampler_gives_at_the_lower_rate(tmp_path, rate):
    av = pytest.importorskip("av")
    from impart_utils.video import sample_frames

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(217):
            picture = np.full((32, 32, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))

    def sampled(fps):
        pairs = [(seconds, np.asarray(picture).mean()) for seconds, picture in sample_frames(path, fps)]
        return np.array(pairs).T

    times, values = thin(*sampled(4), rate)
    np.testing.assert_allclose([times, values], sampled(rate))


def test_cost_falls_with_the_rate_and_recall_is_that_of_the_fewer_frames():
    rng = np.random.default_rng(0)
    films = [rng.normal(size=(40, 8)) + 2 * rng.normal(size=8) for _ in range(8)]
    times, movies = [np.arange(40) / 4] * 8, [str(number // 2) for number in range(8)]
    texts = np.stack([film[1:4].mean(axis=0) for film in films])
    queries = [FilmQueries("text", "text", texts, np.arange(8))]
    table = rate_table(queries, times, films, movies, fps=4, poolings=("mean_raw",))
    assert table.groupby("fps")["frames"].first().to_dict() == {0.25: 3, 0.5: 5, 1.0: 10, 2.0: 20, 4.0: 40}
    assert set(table["variant"]) == {"CLIP"} and len(table) == 5 * 7
    few = rate_table(queries, times, films, movies, fps=4, rates=(1.5, 8, 2), poolings=("mean_raw",))
    assert set(few["fps"]) == {2.0}  # 1.5 doesn't divide 4, 8 isn't there
    with pytest.raises(ValueError, match="Expected rates that divide fps=4, got 3"):
        rate_table(queries, times, films, movies, fps=4, rates=(3,))
    held = [FilmQueries("held out", "text", queries[0].features, np.arange(8), [np.arange(9)] * 8)]
    with pytest.raises(ValueError, match="any frame may answer, got 'held out'"):
        rate_table(held, times, films, movies, fps=4)


def test_within_movies_worked_by_hand():
    movies = ["A"] * 3 + ["B"] * 2 + ["C"]
    similarities = np.zeros((4, 6))
    similarities[0, :3] = 0.9, 0.1, 0.2   # of A: rank 1 of 3, whatever B and C have
    similarities[0, 3:] = 1.0
    similarities[1, :3] = 0.9, 0.1, 0.2   # right is film 2 of A: rank 2
    similarities[2, 3:5] = 0.5, 0.5       # of B: a tie, rank 2 of 2
    similarities[3, 5] = 0.3              # of C: one film, left out
    rows = {row["metric"]: row for row in within_movies(similarities, [0, 2, 4, 5], movies, least=2)}
    assert rows["R@1"]["value"] == pytest.approx((1 / 2 + 0) / 2) and rows["R@1"]["n"] == 2
    assert rows["mean rank"]["value"] == pytest.approx((1.5 + 2) / 2)
    assert rows["R@1, chance"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="a movie with at least 5 films, got none"):
        within_movies(similarities, [0, 2, 4, 5], movies)
