import stat
import struct
import zipfile
from pathlib import Path

import pytest

from r1mm.data.archive import unpack_images
from r1mm.data.selection import match_images
from r1mm.errors import BadInput

KEYS = ["images/a.png", "images/b.png"]
GOOD = {"images/a.png": b"A" * 50, "images/b.png": b"B" * 60, "images/c.png": b"C"}


def packed(path: Path, members: dict[str, bytes], extra: zipfile.ZipInfo | None = None, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if extra:
            archive.writestr(extra, data)
    return path


def refused(tmp_path: Path, archive: Path, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        unpack_images(archive, KEYS, tmp_path / "out", "pictures")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_only_the_wanted_images_come_out(tmp_path: Path) -> None:
    made = unpack_images(packed(tmp_path / "x.zip", GOOD), KEYS, tmp_path / "out", "pictures")
    assert {key: path.read_bytes() for key, path in made.items()} == {key: GOOD[key] for key in KEYS}
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "'/etc/passwd' has an absolute path"),
        ("C:/windows/x.png", "has an absolute path"),
        ("images/../../x.png", "leads out of its folder"),
        ("images\\..\\..\\x.png", "leads out of its folder"),
    ],
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str, said: str) -> None:
    member = zipfile.ZipInfo("placeholder")
    member.filename = name
    refused(tmp_path, packed(tmp_path / "x.zip", GOOD, member), said)


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images/link.png")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(tmp_path, packed(tmp_path / "x.zip", GOOD, link, b"/etc/passwd"), "is a link or a device")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", GOOD)
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        (flags,) = struct.unpack_from("<H", data, data.index(mark) + offset)
        struct.pack_into("<H", data, data.index(mark) + offset, flags | 1)
    archive.write_bytes(data)
    refused(tmp_path, archive, "'images/a.png' is encrypted")


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images/a.png", b"A")
    refused(tmp_path, tmp_path / "x.zip", "is compressed by method 14")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", {**GOOD, "images/b.png": bytes(40 << 20)})
    refused(tmp_path, archive, r"'images/b.png' would unpack from \d+ to 41943040 bytes .* decompression bomb")


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", {"images/a.png": bytes(3 << 20), "images/b.png": b"B"})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 50)
    archive.write_bytes(data)
    refused(tmp_path, archive, "damaged or no zip file|has not the size it names")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, packed(tmp_path / "x.zip", GOOD, zipfile.ZipInfo("images/a.png")), "two members are named")


def test_missing_images_are_listed(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", {"images/superCLEVR_new_000001.png": b"A", "images/a.png": b"A"})
    refused(tmp_path, archive, r"lacks 1 of the 2 images .*: images/b.png; .* other names \(Deep-Agent/R1-V#80\)")


@pytest.mark.parametrize("keep", [0, 30, 300])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: int) -> None:
    archive = packed(tmp_path / "x.zip", GOOD)
    archive.write_bytes(archive.read_bytes()[:keep])
    refused(tmp_path, archive, "x.zip is damaged or no zip file")


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    data = (tmp_path / "x.zip").read_bytes().replace(b"AAAA", b"AABA", 1)
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path, tmp_path / "x.zip", "Bad CRC-32")


def test_images_of_one_name_are_told_apart_by_their_folders() -> None:
    members = ["data/images/train/0.png", "data/images/test/0.png"]
    assert match_images(["./Geo/images/test/0.png".removeprefix("./")], members, "x") == {
        "Geo/images/test/0.png": "data/images/test/0.png"
    }
    with pytest.raises(BadInput, match=r"0.png could be data/images/train/0.png or data/images/test/0.png"):
        match_images(["0.png"], members, "x")
