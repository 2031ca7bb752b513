"""Images out of a zip file that nobody has to trust: the wanted members alone, after a look through the whole list."""

import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from r1mm.data.download import check_space
from r1mm.data.selection import match_images
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import make_folder, write_bytes

_LARGEST_IMAGE = 64 << 20
_LARGEST_RATIO = 200  # of a member above a megabyte; images hardly shrink in a zip
_ENCRYPTED = 0x1


def _refuse_member(member: zipfile.ZipInfo, where: str) -> None:
    """Raise BadInput for a member that no honest archive of images holds."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    mode = member.external_attr >> 16
    fault = None
    if path.is_absolute() or (path.parts and path.parts[0].endswith(":")):
        fault = "has an absolute path"
    elif ".." in path.parts:
        fault = "leads out of its folder"
    elif "\0" in member.orig_filename:
        fault = "has a zero byte in its name"
    elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link or a device"
    elif member.flag_bits & _ENCRYPTED:
        fault = "is encrypted"
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        fault = f"is compressed by method {member.compress_type}"
    if fault:
        raise BadInput(f"{where}: member {member.filename!r} {fault}; this archive is not what it should be: refused")


def _refuse_size(member: zipfile.ZipInfo, where: str) -> None:
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > _LARGEST_IMAGE or (member.file_size > 1 << 20 and ratio > _LARGEST_RATIO):
        raise BadInput(
            f"{where}: member {member.filename!r} would unpack from {member.compress_size} to {member.file_size} "
            f"bytes (allowed: {_LARGEST_IMAGE}, and {_LARGEST_RATIO} times); refused as a decompression bomb"
        )


def unpack_images(archive: Path, keys: Iterable[str], folder: Path, title: str) -> dict[str, Path]:
    """Unpack the images `keys` of the zip file `archive` into `folder`, and return where each lies.

    Nothing is written before the whole list of members was checked.  BadInput for a damaged archive, a member with an
    absolute path, `..`, a link, encryption, or an excessive size, two members of one name, and images that are missing.
    """
    where = f"{title}: {archive.name}"
    try:
        with zipfile.ZipFile(archive) as opened:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in opened.infolist():
                _refuse_member(member, where)
                if member.is_dir():
                    continue
                if member.filename in members:
                    raise BadInput(f"{where}: two members are named {member.filename!r}; refused")
                members[member.filename] = member
            wanted = {key: members[name] for key, name in match_images(keys, members, where).items()}
            for member in wanted.values():
                _refuse_size(member, where)
            make_folder(folder)
            check_space(folder, sum(member.file_size for member in wanted.values()), title)
            made = {}
            for key, member in progress_bar(wanted.items(), desc=f"unpack {title}", unit="img"):
                with opened.open(member) as packed:
                    data = packed.read(member.file_size + 1)
                if len(data) != member.file_size:
                    raise BadInput(f"{where}: member {member.filename!r} has not the size it names; refused")
                made[key] = write_bytes(folder / key, data)
            return made
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, UnicodeDecodeError) as error:
        raise BadInput(f"{where} is damaged or no zip file ({error}); delete {archive} and fetch it again") from error
