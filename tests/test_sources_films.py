"""The paper's gallery from metadata, folders of films, and the fetcher against a server on this machine."""

import functools
import http.server
import threading
from pathlib import Path

import pandas as pd
import pytest

from impart_utils.sources import films
from impart_utils.sources.films import classify_error, fetch, folder_gallery, paper_gallery

METADATA = Path(__file__).parents[2] / "shared" / "data" / "metadata"
needs_metadata = pytest.mark.skipif(not METADATA.is_dir(), reason="shared/data/metadata is absent")


# ---- the paper's gallery -----------------------------------------------------------------------------

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


def write_metadata(folder, *, movies=films.PAPER_MOVIES):
    """One clip a movie, titled otherwise than the movie, and clips that a join on the title would take."""
    clips = ["videoid,year,clip_idx,clip_tot,upload_year,title,clip_name,imdbid"]
    texts = ["imdbid,videoid,description"]
    for number, imdbid in enumerate(movies):
        year = films.PAPER_MOVIES[imdbid][1]
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
    assert list(gallery["movie"]) == [row[0] for row in films.PAPER_MOVIES.values()]
    assert set(gallery["clip_name"]) == {"NA"}  # a text, not a missing value
    assert list(gallery["description"]) == [""] + 11 * ["None"]
    assert set(gallery["in_paper"]) == {"unknown"}  # one clip each is not all the paper's code had


def test_faults_of_the_metadata_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no \*clips.csv in"):
        paper_gallery(tmp_path)
    write_metadata(tmp_path, movies=[imdbid for imdbid in films.PAPER_MOVIES if imdbid != "tt0109288"])
    with pytest.raises(ValueError, match="has no clip of Blankman"):
        paper_gallery(tmp_path)
    (tmp_path / "clips.csv").write_text("videoid,title\na,b\n")
    with pytest.raises(ValueError, match="clips.csv: expected the columns .*missing: imdbid, clip_idx"):
        paper_gallery(tmp_path)


# ---- a folder of films -------------------------------------------------------------------------------

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


# ---- fetching ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("message", "state"), [
    ("Private video. Sign in if you've been granted access to this video", "private"),
    ("Video unavailable. This video is private", "private"),
    ("Join this channel to get access to members-only content", "private"),
    ("Video unavailable", "removed"),
    ("Video unavailable. This video has been removed by the uploader", "removed"),
    ("This video is no longer available because the account has been terminated.", "removed"),
    ("unable to download video data: HTTP Error 404: Not Found", "removed"),
    ("Video unavailable. The uploader has not made this video available in your country", "region"),
    ("Video unavailable. This video contains content from X, who has blocked it in your country", "region"),
    ("This video is not available from your location due to geo restriction", "region"),
    ("Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
    ("Sign in to confirm you’re not a bot. Use --cookies-from-browser", "bot check"),
    ("Sign in to confirm you're not a bot. Use --cookies", "bot check"),
    ("Video unavailable. This content isn’t available, try again later. The current session has been "
     "rate-limited by YouTube for up to an hour", "throttled"),
    ("unable to download video data: HTTP Error 429: Too Many Requests", "throttled"),
    ("Requested format is not available. No supported JavaScript runtime could be found", "no runtime"),
    ("Requested format is not available", "other"),
    ("Unable to download webpage: Failed to resolve 'www.youtube.com'", "other"),
])
def test_states_of_clips_from_what_youtube_says(message, state):
    assert classify_error(f"ERROR: [youtube] -jpEsYBH3g4: {message}") == state


def test_fetch_refuses_without_accepted_terms_and_touches_nothing(tmp_path):
    with pytest.raises(PermissionError, match="Nothing was downloaded.*--accept-terms.*films=folder:PATH"):
        fetch(pd.DataFrame(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def server(tmp_path):
    """Serves a folder; answers 429 under /busy. Yields (folder, address, list of the paths asked for)."""
    asked, folder = [], tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            asked.append(self.path)
            if "busy" in self.path:
                return self.send_error(429)
            return super().send_head()

        def log_message(self, *arguments):
            del arguments

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield folder, f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    thread.join()
    running.server_close()


def make_film(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux([*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode(None)])


def gallery_of(*rows):
    texts = {"movie": "M", "description": "d"}
    return pd.DataFrame([{"videoid": name, "clip_name": f"Clip {name}", "url": url, **texts}
                         for name, url in rows])


@pytest.fixture
def get(tmp_path, monkeypatch):
    """`fetch` into films/ without waiting; the lines it tells go to get.lines."""
    pytest.importorskip("yt_dlp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def get(gallery):
        return fetch(gallery, tmp_path / "films", accept_terms=True, sleep=(0, 0), progress=get.lines.append)

    get.lines = []
    return get


def test_clips_are_fetched_from_a_server_with_states_manifest_and_list(tmp_path, server, get):
    served, address, asked = server
    make_film(served / "one.mp4")
    gallery = gallery_of(("-jpEsYBH3g4", f"{address}/one.mp4"), ("gone0000000", f"{address}/gone.mp4"))
    folder = tmp_path / "films"
    manifest = get(gallery).set_index("videoid")
    assert manifest["state"].to_dict() == {"-jpEsYBH3g4": "ok", "gone0000000": "removed"}
    assert (folder / "-jpEsYBH3g4.mp4").read_bytes() == (served / "one.mp4").read_bytes()
    assert "404" in manifest.loc["gone0000000", "message"] and manifest.loc["gone0000000", "file"] == ""
    assert manifest.loc["-jpEsYBH3g4", "sha256"] == films.file_hash(served / "one.mp4")
    assert len(get.lines) == 2 and get.lines[0] == "1 of 2  -jpEsYBH3g4  ok"
    listed = folder_gallery(folder)
    assert listed.drop(columns="path").values.tolist() == [["-jpEsYBH3g4.mp4", "M", "Clip -jpEsYBH3g4", "d"]]
    # again: what is there is left alone, what failed is tried again
    asked.clear()
    make_film(served / "gone.mp4")
    again = get(gallery)
    assert set(again["state"]) == {"ok"} and set(asked) == {"/gone.mp4"}
    assert len(folder_gallery(folder)) == 2
    (folder / "gone0000000.mp4").unlink()  # lost since: got once more
    asked.clear()
    again = get(gallery)
    assert len(folder_gallery(folder)) == 2 and set(asked) == {"/gone.mp4"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False),
                                  again.astype(str))


def test_fetching_stops_when_the_server_says_it_is_too_much(tmp_path, server, get):
    served, address, _ = server
    make_film(served / "one.mp4")
    gallery = gallery_of(("busy000000", f"{address}/busy.mp4"), ("next000000", f"{address}/one.mp4"))
    manifest = get(gallery)
    assert manifest["state"].tolist() == ["throttled"]
    assert "Stopped: throttled. Try again in an hour" in get.lines[-1]
    assert not (tmp_path / "films" / "films.csv").exists()


def test_a_users_own_rows_stay_in_the_list(tmp_path, server, get):
    served, address, _ = server
    make_film(served / "one.mp4")
    touch(tmp_path / "films", "mine.mp4")
    (tmp_path / "films" / "films.csv").write_text("file,movie,title,description\nmine.mp4,Home,Garden,cat\n")
    get(gallery_of(("a0000000000", f"{address}/one.mp4")))
    assert folder_gallery(tmp_path / "films")["title"].tolist() == ["Garden", "Clip a0000000000"]


def test_ids_become_full_addresses_and_warnings_count_for_the_state(tmp_path, monkeypatch):
    yt_dlp = pytest.importorskip("yt_dlp")
    asked = []

    class Fake:
        def __init__(self, options):
            asked.append(options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def extract_info(self, url, download):
            asked.append(url)
            asked[0]["logger"].warning("No supported JavaScript runtime could be found")
            raise yt_dlp.utils.DownloadError("ERROR: [youtube] -a: Requested format is not available")

    monkeypatch.setattr(yt_dlp, "YoutubeDL", Fake)
    manifest = fetch(gallery_of(("-a", "")).drop(columns="url"), tmp_path, accept_terms=True, cookies="c.txt",
                     progress=lambda line: None)
    assert asked[1] == "https://www.youtube.com/watch?v=-a" and manifest["state"].tolist() == ["no runtime"]
    wanted = {"sleep_interval": 10, "max_sleep_interval": 20, "cookiefile": "c.txt"}
    assert {name: asked[0][name] for name in wanted} == wanted


# ---- the command line --------------------------------------------------------------------------------

def test_the_command_line_lists_and_refuses(tmp_path, capsys):
    write_metadata(tmp_path)
    assert films.main(["gallery", "--metadata", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("-id0000000,tt5109784,mother!") and "12 films of 12 movies" in err
    assert films.main(["fetch", "--metadata", str(tmp_path), "--folder", str(tmp_path / "x")]) == 2
    assert "--accept-terms" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert films.main(["gallery", "--folder", str(tmp_path)]) == 2
    assert "There is no film in" in capsys.readouterr().err
    for arguments in (["gallery"], ["fetch", "--metadata", "x"]):
        with pytest.raises(SystemExit):
            films.main(arguments)
