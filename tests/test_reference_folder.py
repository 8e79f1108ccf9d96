"""`reference build`: metadata and pictures on a server become a folder that the paper profile reads."""

import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from impart_utils import cached
from impart_utils.config import load_config
from impart_utils.sources import metadata as lists
from impart_utils.sources import reference_folder
from impart_utils.sources.files import file_hash
from impart_utils.sources.reference_folder import build, main, plan

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
    rows = fast(metadata, tmp_path / "set", pairs=99, filters={"licenses": {"by"}})
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


def test_source_json_says_all_that_the_set_depends_on(metadata, tmp_path):
    filters = {"no_derivatives": "drop", "licenses": {"by", "by-sa"}}
    fast(metadata, tmp_path / "a", pairs=8, seed=3, filters=filters)
    said = json.loads((tmp_path / "a" / "source.json").read_text())
    assert said.pop("hash") in (tmp_path / "a" / "card.md").read_text()
    assert said == {"source": "YFCC15M", "metadata": "metadata.csv", "metadata_sha256": file_hash(metadata),
                    "ids_sha256": None, "seed": 3, "captions": "paper", "pairs": 8,
                    "filters": {"no_derivatives": "drop", "licenses": ["by", "by-sa"]}}


def test_the_hash_of_the_set_knows_the_pictures_too(metadata, tmp_path, monkeypatch):
    def set_hash(name):
        return json.loads((tmp_path / name / "source.json").read_text())["hash"]

    for name in ("a", "b"):
        fast(metadata, tmp_path / name, pairs=8)
    assert set_hash("a") == set_hash("b")
    real = Pictures.do_GET

    def other(self):  # the same addresses, other pixels behind them
        self.path = f"/{int(self.path.strip('/').split('.')[0]) + 5000}.jpg"
        real(self)

    monkeypatch.setattr(Pictures, "do_GET", other)
    monkeypatch.setattr(sys.modules[__name__], "DEAD", {5000 + number for number in DEAD})
    rows = fast(metadata, tmp_path / "c", pairs=8)
    assert list(rows["id"]) == list(pd.read_csv(tmp_path / "a" / "captions.csv", dtype=str)["id"])
    assert set_hash("c") != set_hash("a")


def test_openai_s_list_brings_a_mirror_for_dead_pictures(metadata, tmp_path, monkeypatch):
    """Only listed photos are tried; one that is dead at its own address comes from its hash's."""
    port = Path(metadata).read_text().split("127.0.0.1:")[1].split("/")[0]
    listed = [*DEAD, 12, 13, 14]
    ids = tmp_path / "ids.tsv"
    ids.write_text("".join(f"{row}\t{1000 + n}\t{n + 900:032x}\n" for row, n in enumerate(listed)))
    monkeypatch.setattr(reference_folder, "commons_url",
                        lambda photo_hash: f"http://127.0.0.1:{port}/{int(photo_hash, 16)}.jpg")
    rows = fast(metadata, tmp_path / "set", pairs=10, ids=ids)
    assert sorted(rows["id"]) == sorted(str(1000 + n) for n in listed)
    states = pd.read_csv(tmp_path / "set" / "manifest.csv", dtype=str).set_index("id")
    assert states.loc["1003", "final_url"].endswith("/903.jpg")
    assert states.loc["1012", "final_url"].endswith("/12.jpg")


def test_what_is_left_out_is_said_and_can_be_kept(metadata, tmp_path, capsys):
    text = metadata.read_text().replace("a+red+boat%2C+number+9", "a+red+boat%2C+number+8")
    metadata.write_text(text)
    build(metadata, tmp_path / "a", pairs=3, per_host=None, allow_private=True)
    printed = capsys.readouterr().out
    assert "28 of 30 rows can be used; " in printed
    assert "empty caption: 1" in printed and "caption of an earlier row: 1" in printed
    frame = lists.read_metadata(metadata)
    table, order = plan(frame, empty="keep", duplicates="keep")
    assert sorted(order) == list(range(30)) and set(table["reason"]) == {""}
    table, order = plan(frame)
    assert sorted(order) == [n for n in range(30) if n not in (5, 9)]
    assert order == [row for row in lists.seeded_order(frame, 0) if row not in (5, 9)]


def test_a_list_of_dead_pictures_gives_an_empty_set(metadata, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "DEAD", set(range(30)))
    assert len(fast(metadata, tmp_path / "set", pairs=5)) == 0
    assert "no picture was good" in (tmp_path / "set" / "card.md").read_text()
    written = (tmp_path / "set" / "captions.csv").read_text()
    assert written == "file,caption,id,license,page,title,description\n"


def test_the_kit_s_made_up_list_shows_what_notebook_01_says():
    frame = lists.read_metadata(Path(__file__).parents[1] / "data" / "metadata_sample.csv")
    table, order = plan(frame)
    reasons = table["reason"][table["reason"] != ""].to_dict()
    assert reasons == {4: "empty caption", 6: "caption of an earlier row", 7: "video", 18: "empty caption",
                       22: "caption of an earlier row"}
    full = lists.captions(frame, "full")
    assert full["caption"][4] == "Street furniture!" and table["caption"][4] == ""
    assert len(order) == len(frame) - 5 and table["caption"][5] == table["caption"][6] == "a lovely day"
    card = reference_folder.data_card(frame, order[:10], table, source="metadata_sample.csv", seed=0)
    assert "Not a random sample" in card
    assert all("example.org" in url for url in [*frame["downloadurl"], *frame["pageurl"]])


# ---- the command


LOCAL = ["--allow-private", "--per-host", "0"]


@pytest.mark.slow
def test_the_command_as_readme_and_issue_write_it(metadata, tmp_path):
    """python -m impart_utils.reference build --metadata FILE --pairs N --seed S --out FOLDER"""
    out = tmp_path / "reference" / "mine"
    command = [sys.executable, "-m", "impart_utils.reference", "build", "--metadata", str(metadata)]
    done = subprocess.run([*command, "--pairs", "10", "--seed", "0", "--out", str(out), *LOCAL], text=True,
                          capture_output=True, cwd=Path(__file__).parents[1], timeout=120)
    assert done.returncode == 0, done.stderr
    assert "29 of 30 rows can be used; empty caption: 1" in done.stdout
    assert f"10 of 10 pairs are in {out}" in done.stdout
    assert {path.name for path in out.iterdir() if path.suffix != ".png"} == {
        "captions.csv", "card.md", "manifest.csv", "manifest.jsonl", "source.json"}
    assert len(pd.read_csv(out / "captions.csv")) == 10
    assert fast(metadata, tmp_path / "b", pairs=10)["file"].tolist() == pd.read_csv(out / "captions.csv")[
        "file"].tolist()  # the notebook's call and the command: the same set


def test_the_minutes_are_said_before_a_picture_is_asked_for(metadata, tmp_path, capsys, monkeypatch):
    def first_request(*_, **__):
        raise OSError("the first request")

    monkeypatch.setattr("impart_utils.sources.pictures._fetch_in_order", first_request)
    frame = pd.read_csv(metadata, dtype=str, keep_default_na=False)
    many = pd.concat([frame.assign(photoid=[f"{part}{name}" for name in frame["photoid"]],
                                   description=[f"{part}+{text}x" for text in frame["description"]])
                      for part in range(50)])
    many.to_csv(metadata, index=False)
    with pytest.raises(SystemExit, match="the first request"):
        main(["build", "--metadata", str(metadata), "--pairs", "1000", "--out", str(tmp_path / "x")])
    assert "About 9 minutes if all are on one host (2 requests/s)" in capsys.readouterr().out


def test_the_command_s_filters(metadata, tmp_path, capsys):
    main(["build", "--metadata", str(metadata), "--out", str(tmp_path / "a"), "--pairs", "99",
          "--no-derivatives", "drop", "--empty", "keep", "--captions", "full", *LOCAL])
    rows = pd.read_csv(tmp_path / "a" / "captions.csv", dtype=str, keep_default_na=False)
    assert "1006" not in set(rows["id"]) and rows.set_index("id").loc["1005", "caption"] == "title 5"
    assert "29 of 30 rows can be used; licence left out: 1" in capsys.readouterr().out
    main(["build", "--metadata", str(metadata), "--out", str(tmp_path / "b"), "--licences", "by-nd, by-sa",
          "--pairs", "99", *LOCAL])
    assert list(pd.read_csv(tmp_path / "b" / "captions.csv", dtype=str)["id"]) == ["1006"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--licences", "by,cc0"], "Unknown licence 'cc0'. Known: by, by-sa, by-nd, by-nc, by-nc-sa, by-nc-nd"),
    (["--metadata", "no.csv"], "There is no metadata file at no.csv"),
    (["--ids", "no.tsv"], "No such file|can't be read|There is no")])
def test_the_command_s_errors_are_one_line(metadata, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["build", "--metadata", str(metadata), "--out", str(tmp_path / "set"), *LOCAL, *arguments])
