"""`reference build`: metadata and pictures on a server become a folder that the paper profile reads."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from impart_utils import cached
from impart_utils.config import load_config
from impart_utils.reference import build

COLUMNS = ["photoid", "uid", "title", "description", "datetaken", "dateuploaded", "pageurl", "downloadurl",
           "licensename", "licenseurl", "ext", "marker"]
DEAD = {3, 7, 11}


class Pictures(BaseHTTPRequestHandler):
    """/N.jpg is a picture that only N has (a PNG: its pixels come back exactly); three are gone."""

    asked = []

    def do_GET(self):
        number = int(self.path.strip("/").split(".")[0])
        self.asked.append(number)
        if number in DEAD:
            self.send_error(404)
            return
        pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, "PNG")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body.getvalue())))
        self.end_headers()
        self.wfile.write(body.getvalue())

    def log_message(self, *arguments):
        """Keep pytest's output clean."""


@pytest.fixture
def metadata(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Pictures.asked.clear()
    licence = "http://creativecommons.org/licenses/{}/2.0/"
    rows = [{name: "" for name in COLUMNS} | {
        "photoid": str(1000 + n), "uid": f"user{n % 4}", "title": f"title {n}", "marker": "0", "ext": "jpg",
        "description": "" if n == 5 else f"a+red+boat%2C+number+{n}", "dateuploaded": "1083543121",
        "downloadurl": f"http://127.0.0.1:{server.server_port}/{n}.jpg", "pageurl": f"page{n}",
        "licenseurl": licence.format("by-nd" if n == 6 else "by")} for n in range(30)]
    path = tmp_path / "metadata.csv"
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path)
    yield path
    server.shutdown()


def fast(metadata, folder, **options):
    return build(metadata, folder, per_host=None, allow_private=True, progress=False, **options)


def test_build_replaces_dead_rows_and_keeps_captions_with_their_pictures(metadata, tmp_path):
    rows = fast(metadata, tmp_path / "set", pairs=20)
    assert len(rows) == 20 and len(set(rows["file"])) == 20
    for row in rows.itertuples():
        number = int(row.id) - 1000
        assert number not in DEAD | {5}  # 404s, and the empty caption
        assert row.caption == f"a red boat, number {number}" and row.page == f"page{number}"
        wanted = np.random.default_rng(number).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        with Image.open(tmp_path / "set" / row.file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), wanted)
    assert pd.read_csv(tmp_path / "set" / "captions.csv", dtype=str).equals(rows)
    assert "20 picture-text pairs" in (tmp_path / "set" / "card.md").read_text()


def test_the_same_metadata_gives_the_same_set_and_asks_for_nothing_twice(metadata, tmp_path):
    first = fast(metadata, tmp_path / "a", pairs=12, threads=1)
    again = fast(metadata, tmp_path / "b", pairs=12, threads=8)
    assert first.equals(again)
    asked = len(Pictures.asked)
    assert fast(metadata, tmp_path / "a", pairs=12).equals(first) and len(Pictures.asked) == asked
    assert set(fast(metadata, tmp_path / "c", pairs=12, seed=1)["id"]) != set(first["id"])


def test_licences_can_be_left_out_and_a_short_list_gives_fewer(metadata, tmp_path):
    rows = fast(metadata, tmp_path / "set", pairs=99, licenses={"by"})
    assert len(rows) == 30 - len(DEAD) - 2 and "1006" not in set(rows["id"])  # no-derivatives, empty caption
    log = (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()
    states = [json.loads(line)["state"] for line in log]
    assert states.count("dead") == len(DEAD)


def test_the_built_folder_is_a_reference_of_the_notebooks(metadata, tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))
    rows = fast(metadata, tmp_path / "set", pairs=20)
    config = load_config("demo", reference=f"folder:{tmp_path / 'set'}", references=8, pairs=20, top_k=2)
    references, training = cached.reference_pairs(config)
    assert len(references) == 8 and len(training) == 12
    captions = dict(zip(rows["file"], rows["caption"], strict=True))
    assert references.captions == [captions[name] for name in references.ids]
    licences = dict(zip(rows["file"], rows["license"], strict=True))
    assert references.metadata["columns"]["license"] == [licences[name] for name in references.ids]
