"""Fetching clips by yt-dlp: states from messages, and a server on this machine."""

import functools
import http.server
import threading

import pandas as pd
import pytest

from impart_utils.sources import film_fetch
from impart_utils.sources.film_fetch import classify_error, fetch
from impart_utils.sources.films import folder_gallery


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
    assert manifest.loc["-jpEsYBH3g4", "sha256"] == film_fetch.file_hash(served / "one.mp4")
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
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "mine.mp4").write_bytes(b"film")
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
