"""The data card: it accounts for every row, and says by itself what a list is."""

import numpy as np
import pytest
from test_metadata import BY, SHARED, frame_of, needs_shared, record

from impart_utils.sources.data_card import data_card, set_hash
from impart_utils.sources.metadata import captions, read_metadata


def card_of(frame, kept, **options):
    return data_card(frame, kept, captions(frame), source="list.csv, SHA-256 00ff", seed=5, **options)


def test_the_card_accounts_for_every_row():
    frame = frame_of(*[record(number, uid=f"{number % 3}@N01", licenseurl=BY) for number in range(6)],
                     record(6, description=""), record(7, description="a+dog+number+1"))
    card = card_of(frame, [4, 0], states={"101": "dead", "102": "placeholder", "104": "ok"},
                   count_tokens=lambda text: 80 if text.endswith("4") else 6)
    assert "# Data card: 2 picture-text pairs" in card and "list.csv, SHA-256 00ff, 8 rows read" in card
    assert "seed 5" in card and "median 4, mean 4.0, maximum 4" in card
    assert "over CLIP's 77 tokens: 1" in card
    for line in ("| kept | 2 |", "| dead | 1 |", "| placeholder | 1 |", "| not needed | 2 |",
                 "| empty caption | 1 |", "| caption of an earlier row | 1 |", "| by | 2 |", "| 2004 | 2 |"):
        assert line in card  # 2 + 1 + 1 + 2 + 1 + 1 = 8
    assert "Not a random sample" not in card  # 8 rows say nothing


def test_the_hash_of_the_set_moves_with_order_ids_captions_and_pictures():
    frame = frame_of(*[record(number) for number in range(6)])

    def printed(frame, kept, **options):
        line, = (line for line in card_of(frame, kept, **options).splitlines() if "Hash of the set" in line)
        return line.split(": ")[1]

    assert printed(frame, [1, 2]) == printed(frame.assign(uid="other"), [1, 2])
    assert len({printed(frame, [1, 2]), printed(frame, [2, 1]), printed(frame, [1, 3]),
                printed(frame.assign(description="x" + frame["description"]), [1, 2]),
                printed(frame, [1, 2], picture_hashes=["aa", "bb"]),
                printed(frame, [1, 2], picture_hashes=["aa", "bc"])}) == 6
    assert printed(frame, [1], picture_hashes=["aa"]) == set_hash(["101"], ["a dog number 1"], ["aa"])


def test_a_stretch_of_a_sorted_list_is_called_that():
    rows = [record(number, uid=str(number % 7)) for number in range(40)]
    assert "order of photo id, 100 to 139; 40 of 40 were uploaded in 2004, by 7 people" in card_of(
        frame_of(*rows), [1, 2])
    assert "Not a random" not in card_of(frame_of(*rows[::-1]), [1, 2])  # not in order of id
    spread = [row | {"dateuploaded": str(1083543121 + 40_000_000 * place)} for place, row in enumerate(rows)]
    assert "Not a random" not in card_of(frame_of(*spread), [1, 2])  # a sorted sample of many years
    bare = [row | {"dateuploaded": "", "datetaken": ""} for row in rows]
    card = card_of(frame_of(*bare), [1, 2])
    assert "Not a random" not in card and "| unknown | 2 |" in card


def test_a_card_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one kept row"):
        card_of(frame_of(record(1)), [])


# ---- the paper repository's csv


@needs_shared
def test_the_card_of_the_paper_s_csv_says_what_it_is():
    frame = read_metadata(SHARED)
    table = captions(frame, empty="keep", duplicates="keep")
    card = data_card(frame, np.arange(1000), table, source="yfcc1k.csv", seed=0)
    assert ("Not a random sample: the source's rows are the first of a list in order of photo id, 29060 to "
            "150681; 999 of 1000 were uploaded in 2004, by 198 people in all") in card
    assert "People: 198; the five with most pictures have 216 of 1000" in card
    for line in ("| kept | 1000 |", "| by-nc-sa | 371 |", "| by-nc-nd | 275 |", "| by-nd | 13 |",
                 "| 2004 | 901 |", "median 10, mean 16.3, maximum 174; captions without any: 4",
                 "captions that an earlier pair has: 42\n"):
        assert line in card


@needs_shared
@pytest.mark.slow
def test_clip_cuts_44_captions_of_the_paper_s_csv():
    clip = pytest.importorskip("clip.clip", reason="clip is not installed")
    frame = read_metadata(SHARED)
    card = data_card(frame, np.arange(1000), captions(frame), source="yfcc1k.csv", seed=0,
                     count_tokens=lambda text: len(clip._tokenizer.encode(text)) + 2)
    assert "over CLIP's 77 tokens: 44" in card
