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

from signals.errors import UserError

BLOCK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


class Download(NamedTuple):
    """An archive and its checksum, SHA-256 or SHA-1 in hexadecimal, whichever was published."""

    url: str
    checksum: str


DOWNLOADS = {  # by the name of the folder that they unpack to
    "VCTK-Corpus-0.92": Download(
        "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
        "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",  # torchaudio.datasets.VCTK_092
    ),
    "musdb18hq": Download(
        "https://zenodo.org/record/3338373/files/musdb18hq.zip",
        "baac80d0483c61d74b2e5f3be75fa557eec52898339e6aa45c1fa48833c5d21d",  # torchaudio.datasets.MUSDB_HQ
    ),
    "fma_small": Download(  # the checksums of FMA are in its README, https://github.com/mdeff/fma
        "https://os.unil.cloud.switch.ch/fma/fma_small.zip",
        "ade154f733639d52e35e32f5593efe5be76c6d70",
    ),
    "fma_medium": Download(
        "https://os.unil.cloud.switch.ch/fma/fma_medium.zip",
        "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    ),
    "fma_metadata": Download(
        "https://os.unil.cloud.switch.ch/fma/fma_metadata.zip",
        "f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    ),
}


def download(folder: Path) -> Path:
    """`folder`, whose name is one of `DOWNLOADS`, fetched and unpacked if it is not there yet.

    Raises UserError as `fetch` and `extract` do.
    """
    url, checksum = DOWNLOADS[folder.name]
    archive = folder.with_name(url.rsplit("/", 1)[-1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            fetch(url, archive, checksum)
            extract(archive, folder)
            archive.unlink()
    return folder


def fetch(url: str, path: Path, checksum: str) -> None:
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
        found = hashlib.file_digest(file, "sha1" if len(checksum) == 40 else "sha256").hexdigest()
    if found != checksum:
        part.unlink()
        raise UserError(
            f"{url} has checksum {found[:16]}..., not {checksum[:16]}...: run it again, or report it."
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

    Where all that the archive holds is in a folder of the same name, it is this folder.
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
        inner = partial / folder.name
        os.replace(inner if list(partial.iterdir()) == [inner] and inner.is_dir() else partial, folder)
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
