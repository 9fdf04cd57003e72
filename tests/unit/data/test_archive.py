import io
import re
import stat
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from helpers.archive_server import (
    ARCHIVE,
    FILES,
    SIZE,
    Server,
    assert_complete,
    assert_helpful,
    assert_nothing_there,
    contents,
    fetch,
    pack,
    unpack_archive,
    whole,
    within,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.errors import DataError

pytestmark = pytest.mark.usefixtures("quick_downloads")


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "./", "a/b/chest_xray/", "chest_xray\\"])
def test_train_and_test_are_found_in_any_folder_of_the_archive(root: Path, prefix: str) -> None:
    unpack_archive(root, pack(within(prefix)))
    assert_complete(root)


def test_the_outermost_of_nested_copies_is_used(root: Path) -> None:
    nested = {"train/NORMAL/0.jpeg": b"copy", "test/NORMAL/0.jpeg": b"copy"}
    unpack_archive(root, pack(within("chest_xray/chest_xray/", nested) | within("chest_xray/")))
    assert contents(root) == FILES | within("chest_xray/", nested)


def test_junk_is_not_extracted(root: Path) -> None:
    junk = {
        "__MACOSX/chest_xray/train/._0.jpeg": b"resource fork",
        "__MACOSX/chest_xray/test/._0.jpeg": b"resource fork",
        "chest_xray/__MACOSX/._x": b"resource fork",
        "chest_xray/.DS_Store": b"window position",
        "chest_xray/train/.DS_Store": b"window position",
    }
    unpack_archive(root, pack(junk | within("chest_xray/")))
    assert_complete(root)


def test_folder_members_and_identical_duplicates_are_accepted(root: Path) -> None:
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicates
        archive.writestr("chest_xray/train/", b"")
        archive.writestr("chest_xray/train/NORMAL/0.jpeg", FILES["train/NORMAL/0.jpeg"])
    unpack_archive(root, buffer.getvalue())
    assert_complete(root)


def with_member(name: str | zipfile.ZipInfo, content: bytes = b"evil", **options: int) -> bytes:
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicates
        archive.writestr(name, content, **options)
    return buffer.getvalue()


def special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("chest_xray/odd")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("archive", "member"),
    [
        (with_member("../evil"), "'../evil'"),
        (with_member("chest_xray/../../evil"), "'chest_xray/../../evil'"),
        (with_member("..\\evil"), r"'..\\evil'"),
        (with_member("__MACOSX/../../evil"), "'__MACOSX/../../evil'"),
        (with_member("\\evil"), r"'\\evil'"),
        (with_member("C:/evil"), "'C:/evil'"),
        (with_member("C:evil"), "'C:evil'"),
        (with_member("."), "'.'"),
        (with_member(special(stat.S_IFLNK), b"/etc"), "'chest_xray/odd' is a link"),
        (with_member(special(stat.S_IFIFO)), "'chest_xray/odd' is a link or a device"),
        (with_member("chest_xray/odd", compress_type=zipfile.ZIP_BZIP2), "'chest_xray/odd' is compressed"),
        (with_member("chest_xray/odd", compress_type=zipfile.ZIP_LZMA), "'chest_xray/odd' is compressed"),
        (with_member("chest_xray/train/NORMAL/0.jpeg"), "'chest_xray/train/NORMAL/0.jpeg' occurs twice"),
        (with_member("chest_xray/train/NORMAL"), "chest_xray/train/NORMAL"),
        (with_member("chest_xray/train/NORMAL/0.jpeg/x/y"), "chest_xray/train/NORMAL/0.jpeg"),
    ],
    # Archives contain their creation time, so their bytes must not be part of a test ID, which pytest-xdist compares.
    ids=lambda value: "archive" if isinstance(value, bytes) else value,
)
def test_unsafe_members_are_rejected(root: Path, tmp_path: Path, archive: bytes, member: str) -> None:
    with pytest.raises(DataError, match=re.escape(member)) as caught:
        unpack_archive(root, archive)
    assert_helpful(caught.value, root)
    assert_nothing_there(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_absolute_members_are_rejected(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"'{tmp_path}/evil' would be extracted outside"):
        unpack_archive(root, with_member(f"{tmp_path}/evil"))
    assert_nothing_there(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "C:", "a", "train", " ", "\x01", "~"]), min_size=1, max_size=7))
def test_no_member_name_is_extracted_outside_the_root(pieces: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "one" / "two" / "three" / "chest_xray"
        try:
            unpack_archive(root, with_member("".join(pieces)))
        except DataError:
            assert not root.exists()
        inside = contents(root) if root.exists() else {}
        everything = contents(Path(name))
        everything.pop("one/two/three/.chest_xray.lock", None)
        assert everything == within("one/two/three/chest_xray/", inside)


def damaged(compression: int, position: int) -> bytes:
    """Invert one byte of the first member, `position` bytes after the end of its name."""
    archive = bytearray(pack(within("chest_xray/"), compression))
    archive[30 + len("chest_xray/" + next(iter(FILES))) + position] ^= 0xFF
    return bytes(archive)


@pytest.mark.parametrize(
    ("compression", "position", "reason"),
    [
        (zipfile.ZIP_STORED, 3_000, "Bad CRC-32 for file 'chest_xray/train/NORMAL/0.jpeg'"),
        (zipfile.ZIP_DEFLATED, 3_000, ""),  # the error depends on the byte
        (zipfile.ZIP_DEFLATED, 0, "while decompressing"),
        (zipfile.ZIP_STORED, -1, "File name in directory"),
    ],
)
def test_a_damaged_archive_is_removed_and_downloaded_again(
    server: Server, root: Path, compression: int, position: int, reason: str
) -> None:
    valid, broken = pack(within("chest_xray/"), compression), damaged(compression, position)
    server.script = [whole(broken), whole(valid)]
    with pytest.raises(DataError, match=f"downloads it again: .*{reason}") as caught:
        fetch(root, server.url, broken)
    assert_helpful(caught.value, root)
    assert_nothing_there(root)
    fetch(root, server.url, valid)
    assert_complete(root)


def flagged(bit: int, name: bytes = b"chest") -> bytes:
    """Set a flag of the first member in both of its headers."""
    archive = bytearray(ARCHIVE.replace(b"chest", name))
    struct.pack_into("<H", archive, 6, 1 << bit)
    struct.pack_into("<H", archive, archive.index(b"PK\x01\x02") + 8, 1 << bit)
    return bytes(archive)


def wrong_offset() -> bytes:
    """Return an archive with a wrong offset of the central directory."""
    return ARCHIVE[:-6] + struct.pack("<I", 2 * SIZE) + ARCHIVE[-2:]


def overlong() -> bytes:
    """Return an archive whose first member extends beyond the end of the file."""
    archive = bytearray(ARCHIVE)
    struct.pack_into("<II", archive, archive.index(b"PK\x01\x02") + 20, SIZE, SIZE)
    return bytes(archive)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"this is no archive" * 100, "not a zip file"),
        (ARCHIVE[:-1000], "not a zip file"),
        (flagged(bit=0), "encrypted"),
        (flagged(bit=11, name=b"ch\xffst"), "'utf-8' codec"),
        (wrong_offset(), "downloads it again: "),  # the reason differs between versions of Python
        (overlong(), r"downloads it again: \w"),
        (with_member("chest_xray/" + "long" * 100), "name too long"),
        (
            pack({name: content for name, content in FILES.items() if "train" in name}),
            "no folder with train/ and test/",
        ),
        (pack({"chest_xray/train/0.jpeg": b"", "chest_xray/test": b"a file"}), "no folder with train/ and test/"),
        (pack({"a/train/0.jpeg": b"", "b/test/0.jpeg": b""}), "no folder with train/ and test/"),
        (pack({}), "no folder with train/ and test/"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_other_files_are_rejected(root: Path, archive: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        unpack_archive(root, archive)
    assert_nothing_there(root)


@pytest.mark.parametrize("members", [1, 50])
def test_archives_with_an_excessive_compression_ratio_are_not_unpacked(root: Path, members: int) -> None:
    zeros = {f"train/{number}": bytes(10_000_000 // members) for number in range(members)}
    with pytest.raises(DataError, match=r"10,\d+,\d+ bytes"):
        unpack_archive(root, pack(within("chest_xray/", FILES | zeros), zipfile.ZIP_DEFLATED))
    assert_nothing_there(root)


def test_a_member_larger_than_its_declared_size_is_rejected(root: Path) -> None:
    bomb = pack(within("chest_xray/", FILES | {"train/bomb": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="chest_xray/train/bomb"):
        unpack_archive(root, bomb.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 10)))
    assert_nothing_there(root)
