"""Metadata: four formats, two ways of cleaning captions, and the seeded order."""

import bz2
import random
import sys
from pathlib import Path
from urllib.parse import quote, unquote_plus

import numpy as np
import pandas as pd
import pytest

from impart_utils.sources.metadata import (
    COLUMNS,
    YFCC_COLUMNS,
    captions,
    clean_caption,
    join_ids,
    license_code,
    read_ids,
    read_metadata,
    seeded_order,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "metadata" / "yfcc1k.csv"
needs_shared = pytest.mark.skipif(not SHARED.is_file(), reason="shared/data/metadata/yfcc1k.csv is not here")
BY = "http://creativecommons.org/licenses/by/2.0/"


def record(number, **values):
    """A row of YFCC as a dict with all its 25 columns."""
    return dict.fromkeys(YFCC_COLUMNS, "") | {
        "line": str(number), "photoid": str(100 + number), "hash": f"{number:032x}", "uid": "1@N01",
        "title": f"Title+{number}", "description": f"a+dog+number+{number}", "licenseurl": BY,
        "ext": "jpg", "marker": "0", "downloadurl": f"http://farm1.staticflickr.com/{number}.jpg",
        "dateuploaded": "1083543121", "datetaken": "2004-05-02 17:12:01.0"} | values


def write_csv(path, records):
    names = [name for name in YFCC_COLUMNS if name not in ("line", "hash")]
    pd.DataFrame(records, columns=names).to_csv(path)  # with an unnamed index, as the paper's has one
    return path


def write_tab(path, records):
    text = "".join("\t".join(row[name] for name in YFCC_COLUMNS) + "\n" for row in records).encode()
    path.write_bytes(bz2.compress(text) if path.suffix == ".bz2" else text)
    return path


def frame_of(*records):
    return pd.DataFrame(records, columns=COLUMNS, dtype=str)


# ---------------------------------------------------------------- reading


def test_csv_and_tab_file_give_the_same_frame(tmp_path):
    records = [record(1), record(2, title="None", description="NA", ext="png", marker="1"), record(3, uid="")]
    from_csv = read_metadata(write_csv(tmp_path / "a.csv", records))
    from_tab = read_metadata(write_tab(tmp_path / "yfcc100m_dataset", records))
    packed = read_metadata(write_tab(tmp_path / "yfcc100m_dataset.bz2", records))
    assert list(from_csv.columns) == COLUMNS and list(from_csv.index) == [1, 2, 3]
    for name in COLUMNS:
        assert list(from_tab[name]) == list(packed[name]) == [row[name] for row in records]
        assert list(from_csv[name]) == (["", "", ""] if name == "hash" else list(from_tab[name]))
    assert all(isinstance(value, str) for value in from_csv.to_numpy().ravel())


def test_ids_are_never_numbers(tmp_path):
    records = [record(1, photoid="00123"), record(2, photoid="9" * 25)]
    frame = read_metadata(write_csv(tmp_path / "a.csv", records))
    assert list(frame["photoid"]) == ["00123", "9" * 25]


def test_a_quoted_field_may_hold_commas_quotes_and_line_breaks(tmp_path):
    text = 'a "dog",\nand a cat'
    frame = read_metadata(write_csv(tmp_path / "a.csv", [record(1, description=text), record(2)]))
    assert list(frame["description"]) == [text, "a+dog+number+2"] and list(frame.index) == [1, 2]


def test_a_tab_file_knows_no_quotes(tmp_path):
    frame = read_metadata(write_tab(tmp_path / "a", [record(1, title='"open'), record(2, title='shut"')]))
    assert list(frame["title"]) == ['"open', 'shut"']


def test_given_ids_alone_are_kept_with_their_row_numbers(tmp_path):
    path = write_tab(tmp_path / "a", [record(number) for number in range(1, 30)])
    assert list(read_metadata(path, ids={"125", "103", "7"}).index) == [3, 25]


def test_openai_s_list_is_joined(tmp_path):
    listed = "7\t105\tabc\n8\t102\tdef\n9\t999\tfff\n"
    (tmp_path / "ids.tsv.bz2").write_bytes(bz2.compress(listed.encode()))
    ids = read_ids(tmp_path / "ids.tsv.bz2")
    assert ids.to_dict("list") == {"line": ["7", "8", "9"], "photoid": ["105", "102", "999"],
                                   "hash": ["abc", "def", "fff"]}
    path = write_csv(tmp_path / "a.csv", [record(number) for number in range(1, 9)])
    joined = read_metadata(path, ids=ids)
    assert list(joined["photoid"]) == ["102", "105"]  # the metadata's order
    assert list(joined["hash"]) == ["def", "abc"] and list(joined.index) == [2, 5]
    pd.testing.assert_frame_equal(join_ids(read_metadata(path), tmp_path / "ids.tsv.bz2"), joined)


def test_lists_that_do_not_belong_together_are_told(tmp_path):
    frame = frame_of(record(1), record(2))
    ids = pd.DataFrame({"line": ["1"], "photoid": ["102"], "hash": ["abc"]})
    with pytest.raises(ValueError, match="Metadata row 1, column hash: .* photo 102"):
        join_ids(frame, ids)
    with pytest.raises(ValueError, match="none among 2 rows of metadata and 1 ids"):
        join_ids(frame, ids.assign(photoid="5"))


def test_parquet_with_plain_text_is_encoded_on_reading(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (extra `scale`) is not installed")
    pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"URL": ["http://a/1.jpg", "http://a/2.jpg"], "TEXT": ["C++ &amp; 100%", None],
                           "width": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "laion.parquet")
    frame = read_metadata(tmp_path / "laion.parquet")
    assert list(frame["photoid"]) == ["1", "2"]
    assert list(frame["downloadurl"]) == ["http://a/1.jpg", "http://a/2.jpg"]
    assert [clean_caption(text) for text in frame["description"]] == ["C++ & 100%", ""]
    yfcc = pyarrow.table({"photoid": [29060, 29205], "downloadurl": ["http://a", "http://b"],
                          "description": ["a+dog", "50%25"]})
    pyarrow.parquet.write_table(yfcc, tmp_path / "yfcc.parquet")
    frame = read_metadata(tmp_path / "yfcc.parquet", ids=["29205"])
    assert list(frame["photoid"]) == ["29205"] and list(frame.index) == [2]
    assert clean_caption(frame["description"].iloc[0]) == "50%"
    pyarrow.parquet.write_table(pyarrow.table({"photo": ["x"], "text": ["y"]}), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match="odd.parquet: expected a column downloadurl or url .*got photo, "):
        read_metadata(tmp_path / "odd.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"a\.parquet needs pyarrow, .*extra `scale`"):
        read_metadata(tmp_path / "a.parquet")


def test_errors_name_file_row_and_column(tmp_path):
    with pytest.raises(FileNotFoundError, match="no metadata file at .*none.csv"):
        read_metadata(tmp_path / "none.csv")
    path = write_csv(tmp_path / "a.csv", [record(1), record(2, photoid="29060.0")])
    with pytest.raises(ValueError, match=r"a\.csv, row 2, column photoid: .* got '29060\.0'"):
        read_metadata(path)
    path.write_text(path.read_text().replace("29060.0", "29060") + "2,103,too,short\n")
    with pytest.raises(ValueError, match=r"a\.csv, row 3: expected 24 columns.*got 4"):
        read_metadata(path)
    path = write_tab(tmp_path / "b", [record(1), record(2, title="a\tb")])
    with pytest.raises(ValueError, match=r"b, row 2: expected 25 columns.*got 26"):
        read_metadata(path)
    path.write_text("1\t2\tabc\n")
    with pytest.raises(ValueError, match="b, row 1: expected the 25 tab-separated .*got 3.*read_ids"):
        read_metadata(path)
    path.write_text("id,url\n1,http://a\n")
    with pytest.raises(ValueError, match="b: no column photoid in the first line, 'id,url'"):
        read_metadata(path)
    path.write_text("")
    with pytest.raises(ValueError, match="b: no column photoid"):
        read_metadata(path)
    path.write_text("line\tphotoid\thash\n")
    with pytest.raises(ValueError, match=r"b, row 1: expected line, photoid and hash.*'line \| photoid \| h"):
        read_ids(path)


def test_a_cut_or_binary_file_is_told_with_its_last_row(tmp_path):
    records = [record(number, title=random.Random(number).randbytes(40).hex()) for number in range(9000)]
    whole = write_tab(tmp_path / "a.bz2", records)
    whole.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"a\.bz2 can't be read after row \d+ \(EOFError"):
        read_metadata(whole)
    picture = tmp_path / "a.csv"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"a\.csv can't be read after row 0 \(UnicodeDecodeError"):
        read_metadata(picture)


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize(("encoded", "paper", "full"), [
    ("From+outside+my+window.", "From outside my window.", "From outside my window."),
    ("caf%C3%A9+%2B+bar%0D%0A%0D%0Aopen", "café + bar open", "café + bar open"),
    ("see+%3Ca+href%3D%22http%3A%2F%2Fx.org%22%3Emy%3C%2Fa%3Edog", "see my dog", "see my dog"),
    ("one%3Cbr+%2F%3Etwo", "one two", "one two"),
    ("black%26amp%3Bwhite+%26%238212%3B+%26quot%3Bok%26quot%3B", 'black&white — "ok"', 'black&white — "ok"'),
    ("%26amp%3Blt%3B", "&lt;", "<"),  # encoded twice
    ("at+http%3A%2F%2Fx.org%2Fa+now", "at http://x.org/a now", "at now"),
    ("at+http%3A%2F%2Fx.org%2Fa%2Fvery%2Flong%2Fone+now", "at now", "at now"),
    ("x" * 25 + "+" + "y" * 26, "x" * 25, "x" * 25 + " " + "y" * 26),
    ("mail+me%40x.org+or+www.x.org%2Fa", "mail me@x.org or www.x.org/a", "mail or"),
    ("a+%3C+b+and+I+%3C3+you", "a < b and I <3 you", "a < b and I <3 you"),
    ("%3Cscript%3Evar+x%3C%2Fscript%3Edog%3C%21--+no+--%3E", "dog", "dog"),
    ("+%0A+", "", ""), ("", "", ""),
])
def test_cleaning_by_hand(encoded, paper, full):
    assert clean_caption(encoded) == paper
    assert clean_caption(encoded, "full") == full


def test_full_cleaning_joins_title_and_description():
    assert clean_caption("on+grass", "full", title="My+dog") == "My dog. on grass"
    assert clean_caption("on+grass", "full", title="Dog%21") == "Dog! on grass"
    assert clean_caption("My+dog+Bo", "full", title="my+dog") == "My dog Bo"  # not said twice
    assert clean_caption("", "full", title="My+dog") == "My dog"
    assert clean_caption("on+grass", "paper", title="My+dog") == "on grass"
    with pytest.raises(ValueError, match="Unknown cleaning 'both'. Known: paper, full"):
        clean_caption("a", "both")


def reference_cleaning(text):
    """The paper's way, with the library that its code used."""
    bs4 = pytest.importorskip("bs4", reason="BeautifulSoup is not installed")
    text = bs4.BeautifulSoup(unquote_plus(text), "html.parser").get_text(separator=" ")
    return " ".join(word for word in text.split() if len(word) <= 25)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_paper_cleaning_equals_beautifulsoup_on_random_markup():
    rng = random.Random(0)
    pieces = ['<a href="x">', "</a>", "<br/>", "<", ">", "&amp;", "&foo;", "&amp", "&copy2", "&#65;", "&",
              "&#x80;", "&#", "text ", "<!-- c -->", "<script>x<b>", "</script>", '"', "<b", "\n", "é", "<p>",
              "</p>", "&nbsp;", "<style>", "</style>", "AT&T", "a<3", " ", "&notit;", "</ ", "<?php ?>",
              "&#xD800;", "&lt;b&gt;"]
    for _ in range(1500):
        text = quote("".join(rng.choice(pieces) for _ in range(rng.randint(1, 8))), safe="")
        assert clean_caption(text) == reference_cleaning(text), unquote_plus(text)


def test_reasons_are_given_row_by_row():
    by_nc = BY.replace("/by/", "/by-nc-nd/")
    frame = frame_of(
        record(1, description="a+dog"), record(2, description="%3Cbr%3E"), record(3, description="a++dog"),
        record(4, description="a+cat", marker="1"), record(5, description="a+cat", licenseurl=by_nc),
        record(1, description="twice"), record(7, description="a+cat"), record(8, description=""))
    table = captions(frame, licenses={"by", "by-sa"})
    assert list(table["caption"]) == ["a dog", "", "a dog", "a cat", "a cat", "twice", "a cat", ""]
    assert list(table["reason"]) == [
        "", "empty caption", "caption of an earlier row", "video", "licence left out", "id listed before", "",
        "empty caption"]
    assert list(table["same_as"]) == ["", "", "101", "", "", "", "", ""]
    assert list(table.index) == list(frame.index)
    kept = captions(frame, empty="keep", duplicates="keep")
    assert list(kept["reason"]) == ["", "", "", "video", "", "id listed before", "", ""]
    assert kept["same_as"][2] == "101" and kept["same_as"][6] == "105"  # said all the same
    assert list(captions(frame, empty="keep")["reason"])[-1] == ""  # blank captions are no duplicates
    with pytest.raises(ValueError, match="Expected empty to be drop or keep, got 'omit'"):
        captions(frame, empty="omit")


def test_no_derivatives_can_be_left_out_alone_or_beside_other_licences():
    nd, nc = BY.replace("/by/", "/by-nd/"), BY.replace("/by/", "/by-nc/")
    frame = frame_of(record(1), record(2, licenseurl=nd), record(3, licenseurl=nc), record(4, licenseurl=""))
    out = "licence left out"
    assert list(captions(frame)["reason"]) == ["", "", "", ""]
    assert list(captions(frame, no_derivatives="drop")["reason"]) == ["", out, "", ""]
    both = captions(frame, licenses={"by", "by-nd"}, no_derivatives="drop")
    assert list(both["reason"]) == ["", out, out, out]
    with pytest.raises(ValueError, match="Expected no_derivatives to be drop or keep, got 'no'"):
        captions(frame, no_derivatives="no")


def test_license_codes():
    assert license_code("http://creativecommons.org/licenses/by-nc-nd/2.0/") == "by-nc-nd"
    assert license_code("https://creativecommons.org/licenses/by/2.0/") == "by"
    assert license_code("http://flickr.com/commons/usage/") == "http://flickr.com/commons/usage/"
    assert license_code("", "CC-BY") == "CC-BY" and license_code(BY, "Attribution License") == "by"


# ---------------------------------------------------------------- order


def test_the_seeded_order_depends_on_seed_and_ids_alone():
    frame = frame_of(*[record(number) for number in range(200)])
    order = seeded_order(frame, 3)
    assert order.dtype == np.int64 and sorted(order) == list(range(200))
    ids = list(frame["photoid"].iloc[order])
    shuffled = frame.sample(frac=1, random_state=0)
    assert list(shuffled["photoid"].iloc[seeded_order(shuffled, 3)]) == ids  # not on the file's order
    fewer = frame.iloc[:120]
    assert list(fewer["photoid"].iloc[seeded_order(fewer, 3)]) == [name for name in ids if int(name) < 220]
    assert list(frame["photoid"].iloc[seeded_order(frame, 4)]) != ids
    assert 35 < np.sum(order[:100] < 100) < 65  # the first ones are no stretch of the file
    assert ids[:5] == ["209", "185", "267", "221", "259"]  # by sha256 of "3:100", "3:101", …


# ---------------------------------------------------------------- the paper repository's csv


@needs_shared
def test_the_paper_s_csv_has_the_facts_of_the_notes():
    frame = read_metadata(SHARED)
    assert frame.shape == (1000, len(COLUMNS)) and frame["photoid"].iloc[0] == "29060"
    table = captions(frame, empty="keep", duplicates="keep")
    words = table["caption"].str.split().str.len()
    assert (words == 0).sum() == 4  # blank only after cleaning: their text was one long address
    assert words.median() == 10 and words.max() == 174 and round(words.mean(), 1) == 16.3
    assert sum("<" in unquote_plus(text) for text in frame["description"]) == 120
    assert captions(frame)["reason"].value_counts().to_dict() == {
        "": 954, "caption of an earlier row": 42, "empty caption": 4}
    assert (table["same_as"] != "").sum() == 42
    without_nd = captions(frame, licenses={"by", "by-sa", "by-nc", "by-nc-sa"})
    assert (without_nd["reason"] == "licence left out").sum() == 288
    assert (captions(frame, no_derivatives="drop")["reason"] == without_nd["reason"]).all()
    assert set(frame["marker"]) == {"0"} and sorted(frame["ext"].value_counts()) == [3, 997]


@needs_shared
def test_odd_rows_of_the_paper_s_csv():
    frame = read_metadata(SHARED).reset_index(drop=True)
    paper = captions(frame, empty="keep", duplicates="keep")["caption"]
    full = captions(frame, "full", empty="keep", duplicates="keep")["caption"]
    assert paper[0].startswith("a link to a much higher resolution version, where you can")
    assert paper[0].endswith("Full Sized image --")
    assert list(paper[83:87]) == ["", "", "", ""]  # a link whose text is an address of one word
    assert list(full[83:87]) == ["street furniture!", "street furniture!", "out my window",
                                 "HackNight Videoconferencing"]
    assert paper[797].startswith("<< previous page | next page >> first page flickr's")  # "<<" inside a link
    assert "I don't remember now." in paper[290] and "<s>" not in paper[290]
    assert "it’s a little hard" in paper[643]
    assert not full.str.contains(r"https?://|</?a\b|&amp;|%20|\s{2}", regex=True).any()
    assert (full.str.split().str.len() > 0).all()


@needs_shared
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_paper_cleaning_equals_beautifulsoup_on_the_paper_s_csv():
    frame = read_metadata(SHARED)
    for text in [*frame["description"], *frame["title"]]:
        assert clean_caption(text) == reference_cleaning(text)
