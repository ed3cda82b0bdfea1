"""Downloads from a server on this machine: resumed, checked, unpacked, and never to the outside."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from datamodules import download as module
from datamodules.corpora import Missing
from datamodules.download import DOWNLOADS, Download, extract, fetch
from datamodules.library import Library
from signals.errors import UserError

CONTENT = bytes(range(256)) * 20_000  # five blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves `content` under any name and notes the ranges asked for; can break off, or know no ranges."""
    told = SimpleNamespace(content=CONTENT, asked=[], ranges=True, break_after=None, url="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            told.asked.append(asked)
            if self.path == "/missing":
                return self.send_error(404)
            first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and told.ranges else 0
            if first >= len(told.content):
                return self.send_error(416)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(told.content) - first))
            self.end_headers()
            self.wfile.write(told.content[first : told.break_after])

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    told.url = f"http://127.0.0.1:{listening.server_port}"
    yield told
    listening.shutdown()
    listening.server_close()


def test_a_file_is_fetched_once(server, tmp_path, capfd):
    path = tmp_path / "in" / "file.zip"
    fetch(f"{server.url}/file.zip", path, SHA256)
    assert path.read_bytes() == CONTENT
    assert "file.zip" in capfd.readouterr().out
    fetch(f"{server.url}/file.zip", path, SHA256)
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["file.zip"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "file"
    server.break_after = 3_000_000
    with pytest.raises(UserError, match="broke off after 3,000,000 of 5,120,000 bytes"):
        fetch(f"{server.url}/file", path, SHA256)
    assert not path.exists()
    server.break_after = None
    fetch(f"{server.url}/file", path, SHA256)
    assert server.asked == [None, "bytes=3000000-"]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"what another server gave")
    fetch(f"{server.url}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_part_needs_no_more(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{server.url}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_content_is_refused(server, tmp_path):
    server.content = CONTENT[::-1]
    with pytest.raises(UserError, match="checksum") as raised:
        fetch(f"{server.url}/file", tmp_path / "file", SHA256)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_unreachable_server_is_one_line(server, tmp_path):
    with pytest.raises(UserError, match="could not be fetched: Not Found"):
        fetch(f"{server.url}/missing", tmp_path / "file", SHA256)
    with pytest.raises(UserError, match=r"could not be fetched: .*refused") as raised:
        fetch("http://127.0.0.1:1/file", tmp_path / "file", SHA256)
    assert "\n" not in str(raised.value)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_zip_and_tar_are_unpacked(tmp_path):
    files = {"a.txt": b"1", "in/b.txt": b"2"}
    extract(zipped(tmp_path / "a.zip", files), tmp_path / "from_zip")
    members = [(tarfile.TarInfo(f"./{name}"), content) for name, content in files.items()]
    extract(tarred(tmp_path / "a.tar.gz", *members), tmp_path / "from_tar")
    for folder in ("from_zip", "from_tar"):
        assert {name: (tmp_path / folder / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "in/../../evil", "..\\evil", "C:\\evil"])
def test_paths_to_the_outside_are_refused(tmp_path, name):
    archives = [
        zipped(tmp_path / "a.zip", {"good": b"1", name: b"2"}),
        tarred(tmp_path / "a.tar.gz", (tarfile.TarInfo("good"), b"1"), (tarfile.TarInfo(name), b"2")),
    ]
    for archive in archives:
        with pytest.raises(UserError, match="a path to the outside"):
            extract(archive, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.zip"]


@pytest.mark.parametrize("target", ["/etc", "../.."])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_to_the_outside_are_refused(tmp_path, kind, target):
    archive = tarred(tmp_path / "a.tar.gz", link("door", target, kind), (tarfile.TarInfo("door/evil"), b""))
    with pytest.raises(UserError, match="could not be unpacked"):
        extract(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("door")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(UserError, match="holds a link, door"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


def test_what_is_no_archive_or_damaged_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>try again later</html>")
    with pytest.raises(UserError, match="neither a zip nor a tar"):
        extract(tmp_path / "a.zip", tmp_path / "folder")
    whole = zipped(tmp_path / "b.zip", {"a": CONTENT}).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[:1000] + b"damage" + whole[1006:])
    with pytest.raises(UserError, match=r"b\.zip could not be unpacked"):
        extract(tmp_path / "b.zip", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_is_never_unpacked_over(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is there already"):
        extract(zipped(tmp_path / "a.zip", {"a": b""}), tmp_path / "folder")


def test_a_sha1_is_a_checksum_too(server, tmp_path):
    fetch(f"{server.url}/file", tmp_path / "file", hashlib.sha1(CONTENT).hexdigest())
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(UserError, match="checksum"):
        fetch(f"{server.url}/file", tmp_path / "other", hashlib.sha1(b"other").hexdigest())


def test_a_folder_of_the_same_name_in_the_archive_is_the_folder(tmp_path):
    extract(zipped(tmp_path / "a.zip", {"fma_small/000/1.mp3": b"1"}), tmp_path / "fma_small")
    assert (tmp_path / "fma_small/000/1.mp3").read_bytes() == b"1"
    extract(zipped(tmp_path / "b.zip", {"b/1": b"1", "c": b"2"}), tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["b", "c"]


def served(server, monkeypatch, folder: str, archive: Path) -> None:
    """From now on `folder` is to be had as this archive, from the server of this test."""
    server.content = archive.read_bytes()
    url = f"{server.url}/{DOWNLOADS[folder].url.rsplit('/', 1)[-1]}"
    monkeypatch.setitem(module.DOWNLOADS, folder, Download(url, hashlib.sha256(server.content).hexdigest()))


def test_vctk_is_found_where_it_was_downloaded(server, tmp_path, monkeypatch):
    name = "wav48_silence_trimmed/p360/p360_001_mic1.flac"
    archive = zipped(tmp_path / "made.zip", {name: b"", "txt/p360/p360_001.txt": b""})
    served(server, monkeypatch, "VCTK-Corpus-0.92", archive)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(Missing, match=r"VCTK-Corpus-0\.92"):
        Library(str(root), "unused").select("test", corpus="vctk")
    assert server.asked == []
    for _ in range(2):
        found = Library(str(root), "unused", download=True).select("test", corpus="vctk")
        assert [item.id for item in found.items] == ["p360_001_mic1"]
    assert server.asked == [None]
    assert not (root / "VCTK-Corpus-0.92.zip").exists()


def test_all_that_a_corpus_lacks_is_fetched_below_its_own_root(server, tmp_path, monkeypatch):
    table = ",set,artist\n,split,id\ntrack_id,,\n2,test,1\n"
    served(
        server, monkeypatch, "fma_metadata", zipped(tmp_path / "m.zip", {"fma_metadata/tracks.csv": table})
    )
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    (elsewhere / "fma_small/000").mkdir(parents=True)
    (elsewhere / "fma_small/000/000002.mp3").touch()
    library = Library(str(data), "unused", download=True)
    found = library.select("test", corpus="fma", root=str(elsewhere))
    assert [item.id for item in found.items] == ["000002"]
    assert server.asked == [None]
    assert not list(data.iterdir())


def test_what_cannot_be_downloaded_says_where_it_is(tmp_path):
    with pytest.raises(Missing, match=r"https://github\.com/karolpiczak/ESC-50"):
        Library(str(tmp_path), "unused", download=True).select("test", corpus="esc50")
    with pytest.raises(Missing, match=r"VCTK-Corpus\.tar\.gz"):  # 11 GB of another release would not help
        Library(str(tmp_path), "unused", download=True).select("test", corpus="vctk", release="0.80")


def test_checksums_are_those_of_torchaudio():
    from torchaudio.datasets import musdb_hq, vctk

    assert vctk._CHECKSUMS[DOWNLOADS["VCTK-Corpus-0.92"].url] == DOWNLOADS["VCTK-Corpus-0.92"].checksum
    assert DOWNLOADS["musdb18hq"] == (musdb_hq._URL, musdb_hq._CHECKSUM)
