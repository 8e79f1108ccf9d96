"""Condensed Movies' metadata: the paper's gallery, the splits, durations and casts."""

from pathlib import Path

import pytest

from impart_utils.sources.condensed_movies import (
    PAPER_MOVIES,
    PAPER_PICTURE_QUERY,
    PAPER_TEXT_QUERY,
    casts,
    durations,
    paper_gallery,
    split_clips,
)

METADATA = Path(__file__).parents[2] / "shared" / "data" / "metadata"
needs_metadata = pytest.mark.skipif(not METADATA.is_dir(), reason="shared/data/metadata is absent")


@needs_metadata
def test_the_papers_gallery_has_118_clips_of_12_movies():
    gallery = paper_gallery(METADATA)
    assert gallery.groupby("movie", sort=False).size().to_dict() == {
        "mother!": 10, "Good Boys": 10, "The Grinch": 10, "Downton Abbey": 10, "Abominable": 10,
        "The Angry Birds Movie 2": 10, "Les Misérables": 10, "La Cage aux Folles": 10, "Blankman": 10,
        "Creed II": 9, "Dunkirk": 10, "Shazam!": 9}
    assert len(gallery) == 118 and gallery["videoid"].is_unique and (gallery["description"] != "").all()
    # the stored gallery: 78 clips uploaded in 2019, 37 in 2020; metadata has the 3 that it lacks
    assert gallery["upload_year"].value_counts().to_dict() == {2019: 80, 2020: 38}
    unknown = gallery[gallery["in_paper"] == "unknown"]
    assert unknown["movie"].value_counts().to_dict() == {"Dunkirk": 10, "La Cage aux Folles": 10}


@needs_metadata
def test_clips_that_the_papers_notebook_names_are_there_under_their_names():
    names = paper_gallery(METADATA).set_index("videoid")[["movie", "clip_name"]]
    for videoid, movie, name in (("lsa5PDPgJmI", "Blankman", "Welcome to McDonald's"),
                                 ("-jpEsYBH3g4", "Blankman", "Blowing It"),
                                 ("_0gn0zQx4_s", "Good Boys", "Dislocated Arm"),
                                 ("-mXoZz1dqMQ", "Blankman", "The City's New Heroes")):
        assert names.loc[videoid, "movie"] == movie and name in names.loc[videoid, "clip_name"]


def write_metadata(folder, *, movies=PAPER_MOVIES):
    """One clip a movie, titled otherwise than the movie, and clips that a join on the title would take."""
    clips = ["videoid,year,clip_idx,clip_tot,upload_year,title,clip_name,imdbid"]
    texts = ["imdbid,videoid,description"]
    for number, imdbid in enumerate(movies):
        year = PAPER_MOVIES[imdbid][1]
        clips.append(f"-id{number:07d},2000.0,2,9,{year},Another market's title,NA,{imdbid}")
        texts += [f"{imdbid},-id{number:07d},None"] if number else []
    clips.append("old_creed_1,2015.0,1,11,2016,Creed,Round One,tt6343314")  # the same imdbid, an older film
    clips.append("stranger_01,1982.0,1,5,2019,Les Misérables,Another film,tt0084340")  # the same title
    (folder / "clips.csv").write_text("\n".join(clips) + "\n", encoding="utf-8")
    (folder / "descriptions.csv").write_text("\n".join(texts) + "\n", encoding="utf-8")


def test_the_gallery_joins_on_imdbid_and_upload_year_and_keeps_odd_texts(tmp_path):
    write_metadata(tmp_path)
    gallery = paper_gallery(tmp_path)
    assert len(gallery) == 12 and not set(gallery["videoid"]) & {"old_creed_1", "stranger_01"}
    assert list(gallery["movie"]) == [row[0] for row in PAPER_MOVIES.values()]
    assert set(gallery["clip_name"]) == {"NA"}  # a text, not a missing value
    assert list(gallery["description"]) == [""] + 11 * ["None"]
    assert set(gallery["in_paper"]) == {"unknown"}  # one clip each is not all the paper's code had


def test_faults_of_the_metadata_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no \*clips.csv in"):
        paper_gallery(tmp_path)
    write_metadata(tmp_path, movies=[imdbid for imdbid in PAPER_MOVIES if imdbid != "tt0109288"])
    with pytest.raises(ValueError, match="has no clip of Blankman"):
        paper_gallery(tmp_path)
    (tmp_path / "clips.csv").write_text("videoid,title\na,b\n")
    with pytest.raises(ValueError, match="clips.csv: expected the columns .*missing: imdbid, clip_idx"):
        paper_gallery(tmp_path)


@needs_metadata
def test_the_stored_queries_name_clips_of_the_gallery():
    gallery = paper_gallery(METADATA).set_index("videoid")
    for stored in (PAPER_TEXT_QUERY, PAPER_PICTURE_QUERY):
        assert len(set(stored.videoids)) == 5
        assert (gallery.loc[list(stored.videoids), "in_paper"] == "yes").all()
    # original_code.md: the text found four clips of Blankman and one of Good Boys, the picture Blankman alone
    movies = [list(gallery.loc[list(stored.videoids), "movie"])
              for stored in (PAPER_TEXT_QUERY, PAPER_PICTURE_QUERY)]
    assert movies == [4 * ["Blankman"] + ["Good Boys"], 5 * ["Blankman"]]


# ---- the parts of the data set -----------------------------------------------------------------------

def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parts(folder):
    """Three movies, two of them with one title; clip c has no description, a and d share one."""
    write(folder / "clips.csv", "videoid,year,clip_idx,clip_tot,upload_year,title,clip_name,imdbid",
          "a,1999.0,1,3,2011,Home,One,tt1", "-b,1999.0,2,3,2011,Home,Two,tt1",
          "c,1999.0,3,3,2011,Home,NA,tt1", "d,2001.0,1,1,,Home,One,tt2",
          "e,2001.0,1,1,2015,Away,None,tt3", "f,2001.0,1,1,2015,Away 2,None,tt3")
    write(folder / "descriptions.csv", "imdbid,videoid,description", "tt1,a,They meet.", "tt1,-b,None",
          "tt2,d,They meet.", "tt3,e,Away they go.", "tt3,f,Back.")
    write(folder / "split.csv", "imdbid,split", "tt1,test", "tt2,train", "tt3,test", "tt9,val")


def test_a_split_takes_whole_movies_and_drops_what_its_own_loader_drops(tmp_path):
    write_parts(tmp_path)
    test = split_clips(tmp_path)
    assert list(test["videoid"]) == ["a", "-b", "e", "f"]  # "They meet." is alone within this part
    assert test.attrs["left_out"] == {"without description": 1, "description of two clips": 0}
    assert list(test["description"]) == ["They meet.", "None", "Away they go.", "Back."]
    assert list(test["movie"]) == ["Home", "Home", "Away", "Away"]  # the title is the first clip's
    whole = split_clips(tmp_path, "all")
    assert list(whole["videoid"]) == ["-b", "e", "f"]
    assert whole.attrs["left_out"] == {"without description": 1, "description of two clips": 2}
    assert list(split_clips(tmp_path, "train")["upload_year"]) == [-1]


def test_movies_of_one_title_stay_apart(tmp_path):
    write_parts(tmp_path)
    write(tmp_path / "descriptions.csv", "imdbid,videoid,description", "tt1,a,One.", "tt2,d,Two.")
    assert list(split_clips(tmp_path, "all")["movie"]) == ["Home (tt1)", "Home (tt2)"]


def test_faults_of_a_split(tmp_path):
    write_parts(tmp_path)
    with pytest.raises(ValueError, match="Unknown split 'dev'. Known: train, val, test, all"):
        split_clips(tmp_path, "dev")
    with pytest.raises(ValueError, match="has no clip in split 'val'"):
        split_clips(tmp_path, "val")
    (tmp_path / "split.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no \*split.csv"):
        split_clips(tmp_path)


@needs_metadata
def test_the_real_metadata_loses_138_clips():
    whole = split_clips(METADATA, "all")  # 34 185 clips, 94 without description, 22 texts of two clips each
    assert len(whole) == 34_047 and sum(whole.attrs["left_out"].values()) == 138
    assert whole.groupby("movie")["imdbid"].nunique().max() == 1


def test_durations_leave_out_what_is_no_length(tmp_path):
    write(tmp_path / "durations.csv", "videoid,duration", "-4Q-MS_oFkw,128", "a,", "b,-1", "c,0", "d,12.5")
    assert durations(tmp_path) == {"-4Q-MS_oFkw": 128.0, "d": 12.5}


def test_casts_are_read_as_literals_and_run_nothing(tmp_path):
    write(tmp_path / "casts.csv", "imdbid,cast",
          """tt1,"{'Will Forte': \"\"Max's Dad\"\", 'Yi Li': 'Yi       (voice)'}\"""",
          "tt2,\"__import__('os').abort()\"", "tt3,", "tt4,{}")
    with pytest.warns(UserWarning, match="2 of 4 rows of casts.csv in .* are no cast, the first is line 3"):
        found = casts(tmp_path)
    assert found == {"tt1": {"Will Forte": "Max's Dad", "Yi Li": "Yi       (voice)"}, "tt4": {}}
