"""Corpora from the internet: fetched, checked against a pinned checksum, unpacked."""

import hashlib
import http.client
import lzma
import os
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from datamodules.corpora import AUDIOSTOCK_WHERE, ESC50_WHERE
from signals.errors import UserError

BLOCK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


class Download(NamedTuple):
    """An archive and the folder below the root that its contents go into."""

    url: str
    sha256: str
    folder: str


DOWNLOADS = {
    "vctk": Download(
        "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
        "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",  # torchaudio.datasets.VCTK_092
        "VCTK-Corpus-0.92",
    ),
}
BY_HAND = {
    "esc50": ESC50_WHERE,
    "audiostock": AUDIOSTOCK_WHERE,
    "folder": "It is a folder of your own audio, <speaker or source>/*.wav, below data.root.",
}


def download(corpus: str, root: Path) -> Path:
    """The folder of `corpus` below `root`, fetched and unpacked if it is not there yet.

    Raises UserError for a corpus that is to be had by hand only, and as `fetch` and `extract` do.
    """
    if corpus in BY_HAND:
        raise UserError(f"corpus {corpus} cannot be downloaded. {BY_HAND[corpus]}")
    if corpus not in DOWNLOADS:
        raise UserError(f"unknown corpus {corpus}: one of {', '.join([*DOWNLOADS, *BY_HAND])}.")
    url, sha256, name = DOWNLOADS[corpus]
    folder, archive = root / name, root / url.rsplit("/", 1)[-1]
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if not folder.is_dir():
            fetch(url, archive, sha256)
            extract(archive, folder)
            archive.unlink()
    return folder


def fetch(url: str, path: Path, sha256: str) -> None:
    """`url` as the file `path`, which is there only when it is complete and has this checksum.

    What has come so far is in `<path>.part`, and a second call goes on from there. Raises UserError where the
    server cannot be reached, breaks off, or gives something else.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _transfer(url, part)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url} could not be fetched: {reason}. Run it again to go on.") from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise UserError(
            f"{url} has checksum {found[:16]}..., not {sha256[:16]}...: run it again, or report it."
        )
    os.replace(part, path)


def _transfer(url: str, part: Path) -> None:
    """Append to `part` what is missing of `url`. Raises ConnectionError where it ends too early."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing: the checksum decides
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # a server without ranges starts anew
        rest = answer.headers.get("Content-Length")
        total = done + int(rest) if rest else None
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn()) as progress, part.open("ab" if done else "wb") as file:
            task = progress.add_task(part.stem, total=total, completed=done)
            while block := answer.read(BLOCK):
                file.write(block)
                progress.update(task, advance=len(block))
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection broke off after {file.tell():,} of {total:,} bytes")


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive as `folder`, which is there only when it is complete.

    Raises UserError for an archive that is damaged or holds anything that could end up outside of it, and
    where there is such a folder already.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: move it away to unpack {archive.name}.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if tarfile.is_tarfile(archive):
            _extract_tar(archive, partial)
        elif zipfile.is_zipfile(archive):
            _extract_zip(archive, partial)
        else:
            raise UserError(f"{archive} is neither a zip nor a tar archive.")
        os.replace(partial, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"{archive} could not be unpacked: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            _check(archive, member.name)
        tar.extractall(folder, members, filter="data")  # which refuses links to the outside


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            _check(archive, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{archive} holds a link, {info.filename}: it was not unpacked.")
        zipped.extractall(folder)


def _check(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
        raise UserError(f"{archive} holds {name}, a path to the outside: it was not unpacked.")
