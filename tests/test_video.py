"""Frames by timestamp, on films whose frames carry their number as blocks; encoding in batches."""

import math
import struct
import warnings
import weakref
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from impart_utils import video
from impart_utils.video import PartialFilmWarning, encode_film, sample_frames

av = pytest.importorskip("av")

SIZE, BITS = 64, 12


def numbered(number):
    """A picture that shows `number` as 3 rows of 4 blocks, white for a 1, above a mark in the lower left."""
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            row, column = divmod(bit, 4)
            picture[16 * row:16 * row + 16, 16 * column:16 * column + 16] = 255
    picture[48:, :16] = 255
    return picture


def number_of(picture):
    gray = np.asarray(picture.convert("L"))
    assert gray.shape == (SIZE, SIZE) and gray[56, 8] > 127
    return sum(1 << bit for bit in range(BITS) if gray[16 * (bit // 4) + 8, 16 * (bit % 4) + 8] > 127)


def make_film(path, times, *, codec="libx264", rate=25, bframes=2, last=None, options=None, sound=0):
    """A film whose n-th frame shows n and appears at times[n] seconds; `last`: how long the last stays.

    `sound` is the length of a silent sound track in seconds.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12000)
        stream.options = {"crf": "12", "bf": str(bframes), "g": "30"} if codec == "libx264" else {}
        packets = []
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 12000), Fraction(1, 12000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if last is not None:
            packets[-1].duration = round(last / packets[-1].time_base)
        silence = silent(container, sound) if sound else []
        container.mux(sorted(packets + silence, key=lambda packet: packet.dts * packet.time_base))
    return path


def silent(container, seconds):
    """Packets of a silent sound track."""
    stream = container.add_stream("aac", rate=44100, layout="mono")
    packets = []
    for block in range(round(seconds * 44100 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 1024 * block
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def steady(count, rate=25):
    return [Fraction(number) / rate for number in range(count)]


def irregular(seed=0):
    gaps = np.random.default_rng(seed).integers(1, 30, 25)  # in steps of 1/60 s: 17 ms to half a second
    return [Fraction(int(total), 60) for total in np.append(0, np.cumsum(gaps))]


def on_screen(times, end, fps):
    """The slow oracle: for every i/fps before `end`, the last frame of the whole list that has appeared."""
    count = math.ceil((end - times[0]) * fps)
    return [(i / fps, max(n for n, t in enumerate(times) if t - times[0] <= Fraction(i) / fps))
            for i in range(count)]


def decoded(path):
    """(times, numbers, end of the last frame) of the whole film, decoded into a list first."""
    with av.open(str(path)) as container:
        frames = [(frame.pts * frame.time_base, number_of(frame.to_image()), frame.duration * frame.time_base)
                  for frame in container.decode(video=0)]
    times, numbers, lengths = zip(*frames, strict=True)
    return times, numbers, times[-1] + lengths[-1]


def samples(path, fps=4.0, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PartialFilmWarning)  # a whole film must not be called partial
        return [(seconds, number_of(picture)) for seconds, picture in sample_frames(path, fps, **options)]


def test_25_frames_a_second_sampled_at_4_gives_frames_worked_by_hand(tmp_path):
    film = make_film(tmp_path / "film.mp4", steady(60))  # 2.4 s
    # frame on the screen at i/4 s is floor(25 i / 4)
    assert samples(film) == [(0, 0), (.25, 6), (.5, 12), (.75, 18), (1, 25), (1.25, 31), (1.5, 37),
                             (1.75, 43), (2, 50), (2.25, 56)]


def test_paper_code_takes_every_sixth_frame_at_25_and_every_fifth_at_23_976(tmp_path):
    film = make_film(tmp_path / "pal.mp4", steady(60))
    got = samples(film, protocol="paper_code")
    assert [number for _, number in got] == list(range(0, 60, 6))  # 4.17 a second
    assert [seconds for seconds, _ in got] == pytest.approx([n / 25 for n in range(0, 60, 6)], abs=1e-9)
    ntsc = make_film(tmp_path / "film.mp4", steady(48, Fraction(24000, 1001)), rate=Fraction(24000, 1001))
    assert [number for _, number in samples(ntsc, protocol="paper_code")] == list(range(0, 48, 5))  # 4.8
    assert len(samples(ntsc)) == math.ceil(48 * 1001 / 24000 * 4)


def test_paper_code_gives_an_error_where_the_papers_code_divides_by_zero(tmp_path):
    film = make_film(tmp_path / "slow.mp4", steady(6, 3), rate=3)
    with pytest.raises(ValueError, match="slow.mp4.*every 0th at 3 frames per second"):
        sample_frames(film, protocol="paper_code")
    assert [number for _, number in samples(film)] == [0, 0, 1, 2, 3, 3, 4, 5]
    with pytest.raises(ValueError, match="Expected fps=4 with protocol='paper_code'.*got fps=2"):
        sample_frames(film, 2, protocol="paper_code")


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_irregular_frames_equal_the_oracle(tmp_path, name, bframes):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    film = make_film(tmp_path / name, irregular(), codec=codec, bframes=bframes)
    times, numbers, end = decoded(film)
    assert list(numbers) == list(range(26))
    # Matroska stores milliseconds; a frame that appears exactly at a sample's time may round past it
    assert [float(t) for t in times] == pytest.approx([float(t) for t in irregular()], abs=0.0006)
    for fps in (4, 2.5, 30):
        assert samples(film, fps) == on_screen(times, end, fps)


def test_irregular_frames_count_by_their_time_on_the_screen(tmp_path):
    film = make_film(tmp_path / "a.mp4", [0, .1, .2, .3, 2.3], last=.7, bframes=0)
    assert samples(film, 10) == [(i / 10, number) for i, number in enumerate([0, 1, 2] + 20 * [3] + 7 * [4])]


def test_a_matroska_film_has_no_stream_duration_and_is_sampled_to_its_end(tmp_path):
    film = make_film(tmp_path / "a.mkv", steady(60))
    with av.open(str(film)) as container:
        assert container.streams.video[0].duration is None
    assert samples(film) == on_screen(steady(60), Fraction(60, 25), 4)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv"])
def test_a_start_offset_is_removed(tmp_path, name):
    film = make_film(tmp_path / name, [Fraction(3, 2) + t for t in steady(60)])
    with av.open(str(film)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(1.5)
    assert samples(film) == on_screen(steady(60), Fraction(60, 25), 4)


def test_transport_stream_without_frame_durations(tmp_path):
    film = make_film(tmp_path / "a.ts", [0, .1, .2, .7], bframes=0)
    numbers = [number for _, number in samples(film, 10)]
    assert numbers == [0, 1] + 5 * [2] + 5 * [3]  # the last frame is given the length of the one before


def test_raw_and_avi_films_store_no_or_shifted_times_but_frames_keep_their_order(tmp_path):
    raw = make_film(tmp_path / "a.h264", steady(50))
    assert samples(raw) == on_screen(steady(50), Fraction(2), 4)  # nothing but the rate is known
    numbers = [number for _, number in samples(make_film(tmp_path / "a.avi", steady(50), bframes=0), 25)]
    assert numbers == list(range(49))  # AVI counts packets: the last frame out has no time left


def test_times_that_go_back_are_put_right(tmp_path):
    film = make_film(tmp_path / "a.avi", steady(50), bframes=2)  # stores the order of decoding
    with av.open(str(film)) as container:
        assert (np.diff([frame.time for frame in container.decode(video=0)]) <= 0).any()
    spans = [(begin, end) for _, begin, end in video._on_screen(film, *video._open(film), problems=None)]
    assert len(spans) == 50 and all(begin < end for begin, end in spans)


def test_more_samples_than_frames_hold_each_frame(tmp_path):
    film = make_film(tmp_path / "a.mp4", steady(3, 5), rate=5)
    pictures = [picture for _, picture in sample_frames(film, 20)]
    assert [number_of(picture) for picture in pictures] == 4 * [0] + 4 * [1] + 4 * [2]
    assert pictures[0] is pictures[3] and pictures[3] is not pictures[4]


def test_a_rate_that_floats_cannot_hold_still_hits_frame_boundaries(tmp_path):
    film = make_film(tmp_path / "a.mp4", steady(31, 1), rate=1)  # float 0.1 is more than 1/10
    assert samples(film, 0.1) == [(0, 0), (10, 10), (20, 20), (30, 30)]


def test_one_frame_is_a_film(tmp_path):
    for name in ("one.mp4", "one.mkv"):
        assert samples(make_film(tmp_path / name, [0])) == [(0, 0)]


def turn(path, matrix):
    """Write `matrix` (a, b, c, d; x' = ax + cy, y' = bx + dy with y down) into the MP4's track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of fields before the matrix
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[place:place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(("matrix", "turned"), [
    ((0, 1, -1, 0), Image.Transpose.ROTATE_270),   # right goes down: clockwise, as a phone held upright
    ((0, -1, 1, 0), Image.Transpose.ROTATE_90),    # a quarter counter-clockwise
    ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
])
def test_rotation_is_applied(tmp_path, matrix, turned):
    film = make_film(tmp_path / "a.mp4", steady(25))
    plain = [np.asarray(picture.transpose(turned)) for _, picture in sample_frames(film)]
    turn(film, matrix)
    pictures = [np.asarray(picture) for _, picture in sample_frames(film)]
    assert len(pictures) == 4
    np.testing.assert_array_equal(pictures, plain)


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    return path


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_a_cut_film_gives_its_good_frames_and_a_warning(tmp_path, share, bframes):
    film = make_film(tmp_path / "a.mp4", steady(250), options={"movflags": "faststart"}, bframes=bframes)
    whole = samples(film)
    with pytest.warns(PartialFilmWarning, match=r"a.mp4 is partial: a cut or damaged packet.* were kept"):
        got = [(seconds, number_of(picture)) for seconds, picture in sample_frames(cut(film, share))]
    assert 8 <= len(got) < len(whole)
    assert got == whole[:len(got)]
    with av.open(str(film)) as container:  # no good frame is lost, not even those that wait for their order
        good = sum(not packet.is_corrupt for packet in container.demux(video=0) if packet.size)
    assert len({number_of(picture) for _, picture in sample_frames(film, 25, problems=[])}) == good


def test_the_pictures_come_before_the_warning(tmp_path):
    film = cut(make_film(tmp_path / "a.mp4", steady(250), options={"movflags": "faststart"}), 0.8)
    frames = sample_frames(film)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of(next(frames)[1]) == 0  # one pass: the end of the film isn't read yet
    with pytest.warns(PartialFilmWarning):
        list(frames)


def test_a_cut_matroska_film_ends_silently_but_is_known_by_its_declared_end(tmp_path):
    film = cut(make_film(tmp_path / "a.mkv", steady(250), bframes=0), 0.6)
    problems = []
    got = [(seconds, number_of(picture)) for seconds, picture in sample_frames(film, problems=problems)]
    assert got == on_screen(steady(250), Fraction(10), 4)[:len(got)] and 8 <= len(got) < 40
    assert len(problems) == 1 and "declared to last 10.00 s" in problems[0]


@pytest.mark.parametrize("begin", [0, Fraction(3, 2)])
def test_a_film_cut_between_two_frames_is_known_by_its_declared_end(tmp_path, begin):
    times = [begin + t for t in steady(250)]
    film = make_film(tmp_path / "a.mp4", times, options={"movflags": "faststart"}, bframes=0)
    with av.open(str(film)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = film.read_bytes()
    for frames, partial in ((200, True), (225, True), (226, False)):  # one second or more is missing, or less
        problems = []
        film.write_bytes(data[:places[frames]])
        assert len(list(sample_frames(film, 25, problems=problems))) == frames
        assert bool(problems) == partial


def test_matroska_declares_the_end_of_each_stream(tmp_path):
    film = make_film(tmp_path / "a.mkv", steady(250), bframes=0, sound=20)
    assert len(samples(film)) == 40  # the sound goes on for longer: that is no lost picture
    problems = []
    assert 8 <= len(list(sample_frames(cut(film, 0.5), problems=problems))) < 40
    assert len(problems) == 1 and "declared to last 10.00 s" in problems[0]


def test_a_damaged_packet_ends_the_film_there(tmp_path):
    film = make_film(tmp_path / "a.mp4", steady(250), bframes=0)
    with av.open(str(film)) as container:  # frames 0 and 150 have a key frame before; spoil packet 160
        packet = [packet for packet in container.demux(video=0) if packet.pts is not None][160]
        place, size = packet.pos, packet.size
    data = bytearray(film.read_bytes())
    data[place:place + size] = bytes([0xFF] * size)
    film.write_bytes(data)
    problems = []
    got = [number_of(picture) for _, picture in sample_frames(film, problems=problems)]
    assert got == [math.floor(6.25 * i) for i in range(len(got))] and 150 < 6.25 * len(got) <= 167
    assert len(problems) == 1 and "Invalid data" in problems[0]


def test_a_film_without_its_index_is_an_error(tmp_path):
    film = make_film(tmp_path / "a.mp4", steady(100))  # the index ("moov") of an MP4 lies at the end
    data = film.read_bytes()
    film.write_bytes(data[:data.rindex(b"moov") - 4])
    with pytest.raises(ValueError, match=r"a.mp4 is not a film, or its index is lost \(a download cut short"):
        sample_frames(film)
    film.write_bytes(data[:data.rindex(b"moov") + 300])
    with pytest.raises(ValueError, match=r"a.mp4 is not a film: no video stream \(sound alone"):
        sample_frames(film)


def test_a_film_without_one_good_frame_is_an_error(tmp_path):
    film = make_film(tmp_path / "a.mp4", steady(10), bframes=0)
    with av.open(str(film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.pts is not None]
    data = bytearray(film.read_bytes())
    for place, size in packets:
        data[place:place + size] = bytes([0xFF] * size)
    film.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.mp4: not one frame could be decoded \(Invalid data"):
        list(sample_frames(film))


def make_sound(path, *, cover):
    with av.open(str(path), "w") as container:
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = SIZE
            picture.pix_fmt, picture.disposition = "yuvj420p", av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(numbered(5), format="rgb24")
            frame.pts = 0
            cover = [*picture.encode(frame), *picture.encode(None)]
        container.mux((cover or []) + silent(container, 0.2))
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_not_a_film_even_with_a_cover_picture(tmp_path, cover):
    with pytest.raises(ValueError, match="song.mp4 is not a film: no video stream"):
        sample_frames(make_sound(tmp_path / "song.mp4", cover=cover))


def test_what_is_not_a_film_is_an_error_that_names_it(tmp_path):
    names = ("page.mp4", "notes.txt", "photo.png", "empty.mp4")
    page, text, photo, empty = (tmp_path / name for name in names)
    page.write_text("<html><body>This video isn't available anymore</body></html>")
    text.write_text("FFmpeg would play this as a film of letters\n" * 30)
    Image.new("RGB", (64, 64)).save(photo)
    empty.touch()
    for path, words in ((page, "page.mp4 is not a film"), (text, "notes.txt is not a film.*'tty'"),
                        (photo, "photo.png is not a film.*'png_pipe'"),
                        (empty, "empty.mp4 is empty, not a film"), (tmp_path, "is a folder, not a film")):
        with pytest.raises(ValueError, match=words):
            sample_frames(path)
    with pytest.raises(FileNotFoundError, match="There is no film at .*gone.mp4"):
        sample_frames(tmp_path / "gone.mp4")


def test_a_title_with_a_colon_is_a_file_and_no_protocol(tmp_path, monkeypatch):
    make_film(tmp_path / "film.mp4", steady(5)).rename(tmp_path / "Mission: Paris.mp4")
    monkeypatch.chdir(tmp_path)
    assert samples("Mission: Paris.mp4") == [(0, 0)]


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_a_rate_must_be_positive(tmp_path, fps):
    with pytest.raises(ValueError, match="Expected fps > 0"):
        sample_frames(tmp_path / "a.mp4", fps)


def test_an_unknown_protocol_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="Unknown protocol 'opencv'. Known protocols: timestamps, paper"):
        sample_frames(tmp_path / "a.mp4", protocol="opencv")


def test_encode_film_in_batches_equals_frame_by_frame(tmp_path):
    film, sizes = make_film(tmp_path / "a.mp4", steady(60)), []

    def encode(pictures):
        sizes.append(len(pictures))
        return np.array([[number_of(picture), 1.0] for picture in pictures])

    got = encode_film(encode, film, batch_size=4)
    assert sizes == [4, 4, 2]
    assert got.frame_features.dtype == np.float32 and got.partial == ""
    assert list(zip(got.timestamps, got.frame_features[:, 0], strict=True)) == samples(film)


def test_encode_film_says_in_words_that_a_film_is_partial(tmp_path):
    film = cut(make_film(tmp_path / "a.mp4", steady(250), options={"movflags": "faststart"}), 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = encode_film(lambda pictures: np.ones((len(pictures), 2)), film)
    assert "a.mp4 is partial" in got.partial and len(got.timestamps) == len(got.frame_features) < 40


def test_memory_does_not_grow_with_the_films_length(tmp_path):
    film, alive, most = make_film(tmp_path / "a.mp4", steady(500)), weakref.WeakSet(), []

    class Counted:  # PIL pictures can't be counted by themselves: each is held by one of these
        def __init__(self, picture):
            self.picture = picture
            alive.add(self)

    def encode(pictures):
        most.append(len(alive))
        return np.ones((len(pictures), 2))

    pictures = video.sample_frames
    try:
        video.sample_frames = lambda *given, **options: (
            (seconds, Counted(picture)) for seconds, picture in pictures(*given, **options))
        assert len(encode_film(encode, film, fps=25, batch_size=8).timestamps) == 500
    finally:
        video.sample_frames = pictures
    assert len(most) == 63 and max(most) <= 9  # a batch, and the picture that is on its way


# ---- the decoder's scaler ----------------------------------------------------------------------------

def wide_film(path, width, height):
    """A film of one second with smooth shapes, so that scalers should agree."""
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", {"crf": "12"}
        for number in range(25):
            picture = np.stack([127 + 100 * np.sin(rows / 9 + number / 5), 127 + 100 * np.cos(columns / 11),
                                127 + 100 * np.sin((rows + columns) / 17)], axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("size", [(322, 180), (180, 322), (200, 200), (64, 48)])
def test_the_decoder_scales_to_the_size_that_clips_own_preprocessing_gives(tmp_path, size):
    import torch
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

    film = wide_film(tmp_path / "a.mp4", *size)
    resize = Resize(96, interpolation=InterpolationMode.BICUBIC)
    own = Compose([resize, CenterCrop(96), PILToTensor()])
    gray = []
    for (_, whole), (_, scaled) in zip(sample_frames(film), sample_frames(film, side=96), strict=True):
        assert scaled.size == resize(whole).size
        assert torch.equal(own(scaled), Compose([CenterCrop(96), PILToTensor()])(scaled))  # only crops now
        # brightness, since colors are stored at half the size and each way brings them up differently
        gray.append([np.asarray(own(picture.convert("L"))[0], dtype=float) for picture in (whole, scaled)])
        assert np.abs(gray[-1][0] - gray[-1][1]).mean() < 2  # of 255
    assert np.abs(gray[0][0] - gray[1][0]).mean() > 10  # the next sample is another picture


def test_scaled_pictures_are_turned_too(tmp_path):
    film = wide_film(tmp_path / "a.mp4", 160, 90)
    turn(film, (0, 1, -1, 0))
    assert {picture.size for _, picture in sample_frames(film, side=45)} == {(45, 80)}
    assert {picture.size for _, picture in sample_frames(film)} == {(90, 160)}


def test_encode_film_hands_over_whole_frames_unless_the_decoder_is_to_scale(tmp_path):
    film, sizes = wide_film(tmp_path / "a.mp4", 160, 90), []

    def encode(pictures):
        sizes.extend(picture.size for picture in pictures)
        return np.ones((len(pictures), 2))

    encode_film(encode, film)
    encode_film(encode, film, resize="decoder", side=45)
    assert sizes == 4 * [(160, 90)] + 4 * [(80, 45)]
    with pytest.raises(ValueError, match="Unknown resize 'pil'. Known: clip, decoder."):
        encode_film(encode, film, resize="pil")
    with pytest.raises(ValueError, match="Expected side > 0 pixels or None, got side=0"):
        sample_frames(film, side=0)
