"""Parsers of benchmark annotations, on small files written in the published formats."""

import json
import warnings

import numpy as np
import pytest

from impart_utils.sources.video_benchmarks import COLUMNS, charades_sta, didemo, msrvtt


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def quietly(parse, *arguments):
    """Parse a file that has no bad row."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return parse(*arguments)


def test_msrvtt_has_one_sentence_a_video_and_no_interval(tmp_path):
    path = write(tmp_path / "MSRVTT_JSFUSION_test.csv",
                 "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n"
                 'ret1,msr7020,video7020,"a little girl, who does gymnastics"\nret2,msr1,video1,None\n')
    table = quietly(msrvtt, path)
    assert list(table.columns) == COLUMNS and table["start"].isna().all() and table["end"].isna().all()
    assert table["benchmark"].unique().tolist() == ["MSR-VTT 1k-A"]
    assert table["video_id"].tolist() == ["video9770", "video7020", "video1"]
    assert table["sentence"].tolist()[1:] == ["a little girl, who does gymnastics", "None"]


def test_msrvtt_faults(tmp_path):
    header = "key,vid_key,video_id,sentence\n"
    path = write(tmp_path / "a.csv", header + "r0,m,video1,a cat\nr1,m,,a dog\nr2,m,video3, \n")
    with pytest.warns(UserWarning, match=r"a.csv: 2 of 3 rows left out, the first is line 3 \(no video\)"):
        table = msrvtt(path)
    assert table["sentence"].tolist() == ["a cat"]
    assert table.attrs["bad_rows"] == [(3, "no video"), (4, "no sentence")]
    with pytest.raises(ValueError, match="b.csv, line 1: expected the columns key.*sentence is missing"):
        msrvtt(write(tmp_path / "b.csv", "key,vid_key,video_id\nr0,m,v\n"))
    with pytest.raises(ValueError, match="c.csv has no usable row"):
        msrvtt(write(tmp_path / "c.csv", header))
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        msrvtt(tmp_path / "gone.csv")


def entry(video, description, times, **more):
    return {"annotation_id": 1, "reference_description": "", "description": description, "video": video,
            "times": times, "num_segments": 6, "dl_link": "", **more}


def test_didemo_takes_the_interval_most_people_gave(tmp_path):
    entries = [entry("1_2_3.mov", "a dog runs", [[0, 0], [1, 2], [1, 2], [1, 1]]),
               entry("4.avi", "the end", [[5, 5], [4, 5], [3, 5], [2, 2]])]
    table = quietly(didemo, write(tmp_path / "test_data.json", json.dumps(entries)))
    assert list(table.columns) == [*COLUMNS, "times"]
    assert table[["start", "end"]].values.tolist() == [[5, 15], [25, 30]]  # chunks of 5 s, the last included
    assert table["times"].tolist() == [entries[0]["times"], entries[1]["times"]]


def test_didemo_faults(tmp_path):
    entries = [entry("a", "inverted", [[3, 1]]), entry("b", "right", [[0, 1]]),
               entry("c", "behind", [[5, 5]], num_segments=5), entry("d", "", [[0, 0]]),
               entry("e", "before", [[-1, 0]])]
    with pytest.warns(UserWarning, match="4 of 5 rows left out, the first is line 1 .interval from 15.0 to"):
        table = didemo(write(tmp_path / "a.json", json.dumps(entries)))
    assert table["video_id"].tolist() == ["b"] and table["times"].tolist() == [[[0, 1]]]
    assert [line for line, _ in table.attrs["bad_rows"]] == [1, 3, 4, 5]
    assert table.attrs["bad_rows"][1][1] == "chunks [5, 5] of a video of 5"
    for broken in ({"video": "a"}, entry("a", "no person", []), entry("a", "one number", [3]), "text"):
        path = write(tmp_path / "b.json", json.dumps([entry("a", "right", [[0, 0]]), broken]))
        with pytest.raises(ValueError, match="b.json, line 2: expected an entry with video, description and"):
            didemo(path)
    with pytest.raises(ValueError, match="c.json is not a readable JSON file"):
        didemo(write(tmp_path / "c.json", "<html>"))


CHARADES = "AO8RW 0.0 6.9##a person is putting a book on a shelf.\nY6R7T 20.8 30.0##person begins to wash.\n"


def test_charades_sta_has_intervals(tmp_path):
    table = quietly(charades_sta, write(tmp_path / "charades_sta_test.txt", CHARADES + "\n"))
    assert table.values.tolist() == [
        ["Charades-STA", "AO8RW", "a person is putting a book on a shelf.", 0.0, 6.9],
        ["Charades-STA", "Y6R7T", "person begins to wash.", 20.8, 30.0]]
    assert table.attrs == {"bad_rows": [], "clipped": 0}


def test_charades_sta_bad_rows_are_counted_and_long_ones_clipped(tmp_path):
    path = write(tmp_path / "a.txt", CHARADES + "AO8RW 9.0 2.0##inverted.\nAO8RW 3.0 3.0##empty.\n"
                 "AO8RW 31 33##late.\nAO8RW -1 3##early.\nAO8RW 25.0 40.0##too long.\n")
    with pytest.warns(UserWarning, match=r"a.txt: 4 of 7 rows left out, .* line 3 \(interval from 9.0 to 2"):
        table = charades_sta(path, {"AO8RW": 30.5, "Y6R7T": 30.0})
    assert [line for line, _ in table.attrs["bad_rows"]] == [3, 4, 5, 6]
    assert table.attrs["bad_rows"][2][1] == "starts after 30.5 s"
    assert table["end"].tolist() == [6.9, 30.0, 30.5] and table.attrs["clipped"] == 1
    with pytest.warns(UserWarning, match="3 of 7"):  # lengths unknown: the late one can't be seen
        assert np.isclose(charades_sta(path)["end"], [6.9, 30, 33, 40]).all()


@pytest.mark.parametrize("line", ["AO8RW 0.0##no end", "AO8RW 0.0 1.0 no bars", "AO8RW 0.0 1.2.3##x", "##"])
def test_a_line_of_another_format_is_an_error_with_its_number(tmp_path, line):
    with pytest.raises(ValueError, match="a.txt, line 3: expected 'id start end##sentence', got"):
        charades_sta(write(tmp_path / "a.txt", CHARADES + line + "\n"))
