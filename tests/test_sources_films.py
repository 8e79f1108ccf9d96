"""Folders of films, and the command line that lists and fetches."""

import numpy as np
import pytest
from test_condensed_movies import write_metadata

from impart_utils import gallery
from impart_utils.sources import films
from impart_utils.sources.films import folder_gallery


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"film")


def test_a_folder_without_list_takes_names_from_files_and_folders(tmp_path):
    touch(tmp_path, "b.MP4", "Sintel/01.mkv", "Sintel/cut/02.webm", "-odd.mov")
    touch(tmp_path, "notes.txt", ".partial/c.mp4", "._b.mp4")  # not films
    gallery = folder_gallery(tmp_path)
    assert gallery[["file", "movie", "title", "description"]].values.tolist() == [
        ["-odd.mov", "", "-odd", ""], ["Sintel/01.mkv", "Sintel", "01", ""],
        ["Sintel/cut/02.webm", "cut", "02", ""], ["b.MP4", "", "b", ""]]
    assert all(path.read_bytes() == b"film" for path in gallery["path"])


def test_a_list_beside_the_films_decides_order_and_texts(tmp_path):
    touch(tmp_path, "a.mp4", "x/b.mp4")
    rows = 'file,movie,title,description,note\nx/b.mp4,M,NA,"one, two",\na.mp4,,T,,\n'
    (tmp_path / "films.csv").write_text(rows)
    gallery = folder_gallery(tmp_path).drop(columns="path")
    assert gallery.values.tolist() == [["x/b.mp4", "M", "NA", "one, two"], ["a.mp4", "", "T", ""]]


HEADER = "file,movie,title,description\n"


@pytest.mark.parametrize(("rows", "error", "words"), [
    ("file,movie,title\na.mp4,,\n", ValueError, "films.csv: expected the columns .*missing: description"),
    (f"{HEADER}a.mp4,,,\ngone.mp4,,,\n", FileNotFoundError, "row 3: there is no file 'gone.mp4'"),
    (f"{HEADER}a.mp4,,,\n", ValueError, "1 of 2 films have no row, the first is 'b.mp4'"),
    (f"{HEADER}a.mp4,,,\na.mp4,,,\n", ValueError, "row 3: 'a.mp4' has a row already"),
    (f"{HEADER},,,\n", ValueError, "row 2: the file name is empty"),
    ("", ValueError, "films.csv is not a readable CSV file"),
])
def test_faults_of_the_list_are_named_with_their_row(tmp_path, rows, error, words):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "films.csv").write_text(rows)
    with pytest.raises(error, match=words):
        folder_gallery(tmp_path)


def test_a_folder_without_films_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"There is no film in .*Known kinds: .mp4, .mkv"):
        folder_gallery(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        folder_gallery(tmp_path / "gone")


# ---- the command line --------------------------------------------------------------------------------

def test_the_command_line_lists_and_refuses(tmp_path, capsys):
    write_metadata(tmp_path)
    assert films.main(["gallery", "--metadata", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("-id0000000,tt5109784,mother!") and "12 films of 12 movies" in err
    assert "stored 115 of them; not known which of: mother! (1), Good Boys (1)" in err
    assert films.main(["fetch", "--metadata", str(tmp_path), "--folder", str(tmp_path / "x")]) == 2
    assert "--accept-terms" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert films.main(["gallery", "--folder", str(tmp_path)]) == 2
    assert "There is no film in" in capsys.readouterr().err
    for arguments in (["gallery"], ["fetch", "--metadata", "x"]):
        with pytest.raises(SystemExit):
            films.main(arguments)


def test_the_command_line_selects_a_split_and_adds_known_durations(tmp_path, capsys):
    write_metadata(tmp_path)
    texts = [f"tt5109784,-id{number:07d},Text {number}." for number in range(12)]
    (tmp_path / "descriptions.csv").write_text("imdbid,videoid,description\n" + "\n".join(texts) + "\n")
    (tmp_path / "split.csv").write_text("imdbid,split\ntt5109784,test\ntt7343762,val\n")
    (tmp_path / "durations.csv").write_text("videoid,duration\n-id0000000,121\n")
    assert films.main(["gallery", "--metadata", str(tmp_path), "--select", "test", "--trim", "known"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["videoid,imdbid,movie,clip_name,description,upload_year,end",
                                "-id0000000,tt5109784,Another market's title,NA,Text 0.,2019,121.0"]
    assert "left out: 0 without description" in err
    assert films.main(["gallery", "--metadata", str(tmp_path), "--trim", "known"]) == 0
    ends = [line.rsplit(",", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["end", "121.0", *11 * [""]]
    for arguments in (["--folder", "x", "--trim", "known"], ["--metadata", "x", "--trim", "detect"]):
        with pytest.raises(SystemExit):
            films.main(["gallery", *arguments])
        assert f"--trim {arguments[-1]} needs" in capsys.readouterr().err


def test_the_command_line_tells_where_films_end(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    ending = rng.normal(size=(8, 16))
    made = gallery.Gallery("folder:x", [f"{n}.mp4" for n in range(4)], list("ABCD"), *[[""] * 4] * 4,
                           [np.arange(28) / 4] * 4, [np.concatenate([rng.normal(size=(20, 16)), ending])] * 1
                           + [np.concatenate([rng.normal(size=(20, 16)), ending]) for _ in range(3)],
                           {"bad.mp4": "bad.mp4 is not a film"}, "fake")
    monkeypatch.setattr(gallery, "film_gallery", lambda config: made)
    (tmp_path / "durations.csv").write_text("videoid,duration\n1,4\n")
    for trim, ends in (("detect", ["5.0"] * 4), ("known", ["7.0", "4.0", "7.0", "7.0"])):
        assert films.main(["gallery", "--folder", str(tmp_path), "--metadata", str(tmp_path), "--trim", trim,
                           "--profile", "demo"]) == 0
        out, err = capsys.readouterr()
        rows = [line.split(",") for line in out.splitlines()]
        assert rows[0] == ["id", "movie", "seconds", "end", "trim"] and [row[3] for row in rows[1:]] == ends
        assert f"trim={trim} ({'4' if trim == 'detect' else '1'} of 4 films)" in err
        assert "bad.mp4: bad.mp4 is not a film" in err
