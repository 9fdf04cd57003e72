"""ZIP archives, unpacked without leaving their folder."""

import shutil
import stat
import zipfile
import zlib
from errno import EEXIST, EINVAL, ENAMETOOLONG, ENOTDIR
from pathlib import Path, PurePosixPath

from pneumo.files import require_space

GROWTH = 4  # JPEGs hardly shrink in an archive: one that unpacks to more than so many times its size is not ours
MOST_MEMBERS = 100_000  # seventeen times as many as the study's archive has images
_DAMAGE = (zlib.error, EOFError, RuntimeError, ValueError)  # what zipfile raises for a bad archive, beside BadZipFile
_IMPOSSIBLE = (EEXIST, EINVAL, ENAMETOOLONG, ENOTDIR)  # names and places that cannot be; the disk raises other errors


def unpack(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, without `__MACOSX` and `.DS_Store`.

    Raises:
        zipfile.BadZipFile: The archive is damaged, or it has a member that could do harm: outside of `folder`, a link,
            or far larger than it should be. Those are found before anything is written.
        OSError: The disk is full or fails.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(file)
            unpacked = sum(info.file_size for info in members.values())
            if unpacked > GROWTH * archive.stat().st_size:
                raise zipfile.BadZipFile(f"it would unpack to {unpacked:,} bytes, over {GROWTH} times its size")
            require_space(folder, unpacked)
            for path, info in members.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, (folder / path).open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except _DAMAGE as error:
        raise zipfile.BadZipFile(str(error) or "it is cut off") from error
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise zipfile.BadZipFile(str(error)) from error
        raise


def _members(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    if len(archive.infolist()) > MOST_MEMBERS:
        raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} members, over {MOST_MEMBERS:,}")
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # a separator to Windows
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise zipfile.BadZipFile(f"the member {info.filename!r} would lie outside of the data set")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is compressed in an unusual way")
        if name.endswith("/") or "__MACOSX" in path.parts or path.name == ".DS_Store":
            continue
        first = members.setdefault(path, info)
        if (first.CRC, first.file_size) != (info.CRC, info.file_size):
            raise zipfile.BadZipFile(f"the member {info.filename!r} is there twice, with different contents")
    return members
