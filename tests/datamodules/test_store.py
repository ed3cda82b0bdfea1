"""The prepared store: decoded once, mapped into memory, rebuilt when it must be, safe to kill and to race."""

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from datamodules import store as module
from datamodules.corpora import Item
from datamodules.store import RESAMPLERS, Store, bandwidth, prepare
from signals.errors import UserError

RATE = 16_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Item:
    soundfile.write(path, wave, rate, subtype=subtype)
    return Item(path, path.stem, path.stem[0])


@pytest.fixture
def items(tmp_path) -> tuple[Item, ...]:
    return tuple(
        write(tmp_path / f"{'abc'[i % 3]}{i:02}.wav", noise(RATE // 2 + 100 * i, i)) for i in range(40)
    )


def mapped(store: Store) -> list[str]:
    """Files whose pages the samples of `store` are."""
    addresses = [wave.__array_interface__["data"][0] for wave in store.waves]
    found = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if any(first <= address < last for address in addresses):
            found.add(line.split()[-1])
    return sorted(Path(name).name for name in found)


@pytest.mark.parametrize(
    ("workers", "files"),
    [(1, ["recordings.arrow"]), (2, ["recordings_00000_of_00002.arrow", "recordings_00001_of_00002.arrow"])],
)
def test_waves_are_views_of_the_mapped_files(items, tmp_path, workers, files):
    store = prepare(items, RATE, tmp_path / "stores", "some", workers)
    assert sorted(file.name for file in store.folder.iterdir()) == files
    assert store.ids == [item.id for item in items]
    assert store.groups == [item.group for item in items]
    for i, wave in enumerate(store.waves):
        np.testing.assert_array_equal(wave, noise(RATE // 2 + 100 * i, i))
        assert not wave.flags.owndata
        assert not wave.flags.writeable
    assert store.lengths.tolist() == [RATE // 2 + 100 * i for i in range(40)]
    if sys.platform == "linux":
        assert mapped(store) == files


def test_workers_and_paths_do_not_show_in_the_fingerprint(items, tmp_path):
    one = prepare(items, RATE, tmp_path / "one", "some")
    two = prepare(items[::-1], RATE, tmp_path / "two", "other", workers=2)
    assert one.fingerprint == two.fingerprint
    assert one.subset([0, 1]).fingerprint != one.fingerprint


def test_the_same_recordings_of_other_speakers_are_told_apart(items, tmp_path):
    """Means over speakers go by them."""
    others = tuple(item._replace(group="one") for item in items)
    one, two = (prepare(these, RATE, tmp_path / "stores", "some") for these in (items, others))
    assert one.hashes == two.hashes
    assert one.fingerprint != two.fingerprint


def test_one_file_is_enough(items, tmp_path):
    assert prepare(items[:1], RATE, tmp_path / "stores", "path/with/slashes", workers=8).ids == ["a00"]


def test_files_are_read_as_librosa_reads_them(tmp_path):
    stereo = np.stack([noise(44_100, 1), noise(44_100, 2)], axis=1)
    item = write(tmp_path / "stereo.flac", stereo, 44_100, "PCM_16")
    store = prepare((item,), 48_000, tmp_path / "stores", "one")
    expected, _ = librosa.load(item.path, sr=48_000)
    assert len(store.waves[0]) == 48_000  # one more by librosa, which rounds 48,000.00000001 up
    np.testing.assert_allclose(store.waves[0], expected[:48_000], atol=1e-6)
    assert store.bandwidths[0] == pytest.approx(22_050, abs=20)  # of the file, without images


def test_unusable_files_are_left_out_with_a_reason(items, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    broken = noise(RATE)
    broken[7] = np.nan
    bad = (
        Item(tmp_path / "text.wav", "text", "t"),
        Item(tmp_path / "none.wav", "none", "n"),
        write(tmp_path / "empty.wav", noise(0)),
        write(tmp_path / "nan.wav", broken),
        write(tmp_path / "silent.wav", np.full(RATE, 1e-5, np.float32)),
        write(tmp_path / "short.wav", noise(RATE // 5)),
    )
    (tmp_path / "none.wav").touch()
    store = prepare(items[:3] + bad, RATE, tmp_path / "stores", "some", workers=2)
    assert store.ids == ["a00", "b01", "c02"]
    reasons = {id_: reason.split(":")[0] for id_, reason in store.left_out.items()}
    assert reasons == {
        "text": "undecodable",
        "none": "undecodable",
        "empty": "empty",
        "nan": "holds NaN or infinity",
        "silent": "silent",
        "short": "shorter than 0.25 s",
    }


def test_recordings_of_one_id_are_refused(items, tmp_path):
    """They would overwrite each other's scores."""
    with pytest.raises(UserError, match=r"corpus two: .*a00\.wav and .*b01\.wav have one id, a00") as raised:
        prepare((items[0], items[1]._replace(id="a00")), RATE, tmp_path / "stores", "two")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x04\x00" + bytes(512)])
def test_an_mp3_that_is_cut_short_is_left_out(tmp_path, mode, tag):
    whole = tmp_path / "whole.mp3"
    soundfile.write(whole, noise(10 * RATE), RATE, format="MP3", bitrate_mode=mode)
    whole.write_bytes(tag + whole.read_bytes())
    (tmp_path / "half.mp3").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    items = tuple(Item(tmp_path / f"{name}.mp3", name, name) for name in ("whole", "half"))
    store = prepare(items, RATE, tmp_path / "stores", "some")
    assert (store.ids, store.lengths.tolist()) == (["whole"], [10 * RATE])
    assert re.fullmatch(r"breaks off at 4\.[89]\d s", store.left_out["half"])


def test_an_mp3_that_does_not_state_its_length_is_whole(tmp_path):
    """By the quiet frames that it begins with, libsndfile takes it for much longer."""
    path, wave = tmp_path / "bare.mp3", np.concatenate([np.zeros(5 * RATE, np.float32), noise(5 * RATE)])
    soundfile.write(path, wave, RATE, format="MP3", bitrate_mode="VARIABLE")
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 2) :])  # its first frame states the length
    assert soundfile.info(path).frames > 15 * RATE
    store = prepare((Item(path, "bare", "b"),), RATE, tmp_path / "stores", "some")
    assert store.lengths[0] == pytest.approx(10 * RATE, rel=0.02)


def test_a_header_that_promises_too_much_leaves_its_file_out_alone(items, tmp_path):
    path = tmp_path / "bogus.flac"
    soundfile.write(path, noise(RATE), RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # 36 bits: samples, in STREAMINFO
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    assert soundfile.info(path).frames == 2**36 - 1
    store = prepare((items[0], Item(path, "bogus", "b")), RATE, tmp_path / "stores", "some")
    assert store.ids == ["a00"]
    assert store.left_out["bogus"] == "breaks off at 1.00 s"


def test_too_little_memory_for_a_file_is_a_reason(items, monkeypatch):
    def read(file, *args, **options):
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    found = module.decode({**items[0]._asdict(), "path": str(items[0].path)}, RATE)
    assert found["reason"] == "8,000 samples are too many for the memory"


def test_nothing_usable_is_an_error(tmp_path):
    item = write(tmp_path / "short.wav", noise(10))
    with pytest.raises(UserError, match=r"none of its 1 files can be used: short: shorter than 0\.25 s"):
        prepare((item,), RATE, tmp_path / "stores", "one")


def test_a_store_is_built_once_and_again_when_it_must_be(items, tmp_path, monkeypatch):
    built = []
    build = module._build

    def counted(items, rate, *rest):
        built.append(rate)
        build(items, rate, *rest)

    monkeypatch.setattr(module, "_build", counted)

    def again(rate: int = RATE) -> tuple[int, str]:
        store = prepare(items[:2], rate, tmp_path / "stores", "some")
        return len(built), store.fingerprint

    count, fingerprint = again()
    assert again() == (count, fingerprint)
    assert again(8000)[0] == 2
    os.utime(items[0].path, ns=(0, 0))
    assert again() == (3, fingerprint)
    write(items[0].path, noise(RATE, seed=99))
    assert again()[0] == 4
    assert again()[1] != fingerprint
    monkeypatch.setattr(module, "READ_VERSION", 1000)
    assert again() == (5, again()[1])  # by the same name


def test_a_half_built_store_is_built_anew(items, tmp_path, monkeypatch):
    build = module._build

    def killed(items, rate, folder, *rest):
        build(items, rate, folder, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_build", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(items[:3], RATE, tmp_path / "stores", "some", workers=2)
    (partial,) = (tmp_path / "stores").glob("*.partial")
    assert list(partial.iterdir())
    monkeypatch.setattr(module, "_build", build)
    assert len(prepare(items[:3], RATE, tmp_path / "stores", "some")) == 3
    assert not partial.exists()


def _prepare(items, root, results):
    results.put(prepare(items, RATE, root, "some").fingerprint)


def test_two_processes_prepare_the_same_store(items, tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    results = context.Queue()
    arguments = (items, tmp_path / "stores", results)
    processes = [context.Process(target=_prepare, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    fingerprints = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert fingerprints[0] == fingerprints[1]
    (built,) = (path for path in (tmp_path / "stores").iterdir() if path.is_dir())
    assert [file.name for file in built.iterdir()] == ["recordings.arrow"]


def test_building_shows_its_progress(items, tmp_path, capfd):
    prepare(items[:4], RATE, tmp_path / "stores", "birdsong")
    assert "preparing birdsong" in capfd.readouterr().err
    prepare(items[:4], RATE, tmp_path / "stores", "birdsong")
    assert "preparing birdsong" not in capfd.readouterr().err


def test_heavy_imports_wait_until_they_are_needed():
    code = "import sys, datamodules.store; print({'datasets', 'torch', 'pyarrow'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize("edge", [3000, 12_000, 20_000])
def test_bandwidth_is_where_the_spectrum_ends(edge):
    wave = noise(48_000 * 2)
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / 48_000) > edge] = 0
    assert bandwidth(np.fft.irfft(spectrum), 48_000) == pytest.approx(edge, abs=120)  # a window leaks


def test_only_recordings_that_reach_high_enough_are_targets():
    waves = [noise(10, i) for i in range(3)]
    store = Store(
        Path(), 48_000, list("abc"), list("xxy"), [16_000.0, 21_000.0, 20_000.0], list("123"), waves
    )
    store.left_out = {"d": "silent"}
    high = store.reaching(20_000)
    assert (high.ids, high.groups, high.hashes) == (["b", "c"], ["x", "y"], ["2", "3"])
    assert high.waves[1] is waves[2]
    assert high.left_out == {"d": "silent", "a": "reaches only 16000 Hz"}
    assert store.left_out == {"d": "silent"}


def test_spread_takes_turns_over_the_groups():
    ids, groups = ["b2", "b1", "b3", "a1", "a2", "c1"], list("bbbaac")
    store = Store(Path(), RATE, ids, groups, [0.0] * 6, ids, [noise(4)] * 6)
    assert store.spread(4).ids == ["a1", "b1", "c1", "a2"]
    assert store.spread(None) is store
    assert store.spread(7) is store


def test_hours_count_samples():
    store = Store(Path(), 2, ["a", "b"], ["a", "b"], [1.0, 1.0], ["", ""], [np.zeros(7200), np.zeros(3600)])
    assert store.hours == pytest.approx(1.5)


# Resampling -----------------------------------------------------------------------------------------------

GOLDENS = Path(__file__).parents[1] / "goldens" / "released.npz"


def test_the_causal_butterworth_is_that_of_king_et_al():
    with np.load(GOLDENS) as goldens:
        wave, expected = goldens["signals.48000.ref"], goldens["king_prep.hr12k"]
    np.testing.assert_allclose(RESAMPLERS["butterworth"](wave, 48_000, 12_000), expected, rtol=0, atol=1e-6)


def test_a_resampling_is_part_of_what_a_store_is(items, tmp_path):
    kept, causal = (
        prepare(items[:1], 12_000, tmp_path / "stores", "some", resampling=name)
        for name in ("soxr", "butterworth")
    )
    assert kept.folder != causal.folder
    assert kept.fingerprint != causal.fingerprint
    assert kept.lengths.tolist() == causal.lengths.tolist()
    odd = RESAMPLERS["butterworth"](np.ones(44_100, np.float32), 44_100, 12_000)
    assert (odd.shape, odd.dtype) == ((12_000,), np.float32)
    with pytest.raises(UserError, match="unknown resampling linear: one of soxr, butterworth, none"):
        prepare(items[:1], 12_000, tmp_path / "stores", "some", resampling="linear")


def test_what_is_not_to_be_resampled_is_kept_or_left_out_by_its_rate(items, tmp_path):
    other = write(tmp_path / "other.wav", noise(44_100), 44_100)
    store = prepare((*items[:2], other), RATE, tmp_path / "stores", "some", resampling="none")
    assert store.ids == ["a00", "b01"]
    for i, wave in enumerate(store.waves):
        np.testing.assert_array_equal(wave, noise(RATE // 2 + 100 * i, i))
    told = "at 44,100 Hz, not 16,000, and is not to be resampled: set data.rate to its rate"
    assert store.left_out == {"other": told}
    assert store.fingerprint == prepare(items[:2], RATE, tmp_path / "stores", "some").fingerprint
    with pytest.raises(UserError, match=rf"none of its 1 files can be used: other: {told}\."):
        prepare((other,), RATE, tmp_path / "stores", "one", resampling="none")
    assert prepare((other,), 44_100, tmp_path / "stores", "one", resampling="none").ids == ["other"]
