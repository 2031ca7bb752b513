"""R1MM_ASSETS: assets out of a local folder that is laid out as upstream's are, without network.

    DIR/models/<owner>/<name>/             a checkpoint as the hub has it
    DIR/datasets/<owner>/<name>/           parquet files, in any folder below; questions and clips as the hub has them
    DIR/files/<owner>/<repository>/<path>  a file of upstream's repository
    DIR/archives/<name of the zip file>    or DIR/archives/<that name without .zip>/, unpacked

Nothing is copied but what comes out of a zip file.  What is not known to be what the recipe pins is served all the
same, and says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from r1mm.asset_kinds import ArchiveAsset, ClipsAsset, DatasetAsset, FileAsset, ModelAsset, RepositoryAsset, VideosAsset
from r1mm.data.access import LOCAL_VARIABLE
from r1mm.data.archive import unpack_images
from r1mm.data.pointers import Pins
from r1mm.data.selection import match_images, model_files, split_shards
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import FileStamp, sha256_file, stamp, write_bytes

_WORTH_A_BAR = 500 << 20  # bytes that take a second or more to hash


@dataclass(frozen=True)
class Found:
    """Files by name below `root`, what identifies them, and why they are not known to be the pinned ones.

    `unpinned`: nobody knows what they should be; they are taken as they are, and written down.
    """

    root: Path
    files: dict[str, Path]
    stamps: dict[str, FileStamp]
    identity: dict[str, str]
    why_not: str | None
    unpinned: bool = False


def _folder(local: Path, kind: str, repo: str, name: str) -> Path:
    folder = local.joinpath(kind, *repo.split("/"))
    if not folder.is_dir():
        raise BadInput(
            f"asset {name} is not in {LOCAL_VARIABLE}={local}: {folder} is no folder; put {repo} there as the hub has "
            f"it, or unset {LOCAL_VARIABLE} to fetch everything"
        )
    return folder


def _names(folder: Path) -> list[str]:
    # The hub's own tools leave a hidden folder beside what they fetch.
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _stamps(files: dict[str, Path], title: str) -> dict[str, FileStamp]:
    stamps = {}
    large = sum(path.stat().st_size for path in files.values()) > _WORTH_A_BAR
    for name, path in progress_bar(files.items(), desc=f"check {title}", unit="file", disable=not large):
        try:
            stamps[name] = stamp(path)
        except OSError as error:
            raise BadInput(f"asset {title}: {path} cannot be read ({error.strerror}); make it readable") from error
    return stamps


def local_model(local: Path, name: str, asset: ModelAsset) -> Found:
    """A checkpoint's folder."""
    folder = _folder(local, "models", asset.repo, name)
    files = {file: folder / file for file in model_files(_names(folder), f"{folder}")}
    stamps = _stamps(files, name)
    differing = [file for file, pin in asset.sha256.items() if file not in stamps or stamps[file].sha256 != pin]
    if differing:
        why = f"{differing[0]} is not the one of {asset.repo}@{asset.revision[:7]} (another sha256, or missing)"
    elif not asset.sha256:
        why = f"no sha256 of {asset.repo}@{asset.revision[:7]} is known (weights from the hub are checked by its own)"
    else:
        why = None
    return Found(folder, files, stamps, {}, why)


def local_dataset(local: Path, name: str, asset: DatasetAsset) -> Found:
    """The parquet files of a dataset's split."""
    folder = _folder(local, "datasets", asset.repo, name)
    files = {file: folder / file for file in split_shards(_names(folder), asset.split, f"{folder}")}
    why = f"no sha256 of the files of {asset.repo}@{asset.revision[:7]} is known"
    return Found(folder, files, _stamps(files, name), {}, why, unpinned=True)


def local_repository(
    local: Path,
    name: str,
    asset: ClipsAsset | VideosAsset | RepositoryAsset,
    choose: Callable[[list[str]], list[str]],
) -> Found:
    """Files of a dataset as the hub has them, `choose` picks them by name: questions, clips, another tool's own."""
    folder = _folder(local, "datasets", asset.repo, name)
    files = {file: folder / file for file in choose(_names(folder))}
    stamps = _stamps(files, name)
    if isinstance(asset, ClipsAsset) and asset.sha256:
        found = stamps[asset.file].sha256
        why = None if found == asset.sha256 else f"sha256 {found[:12]}... is not the pinned {asset.sha256[:12]}..."
        return Found(folder, files, stamps, {}, why)
    place = f"{asset.repo}@{asset.revision[:7]}" if asset.revision else asset.repo
    return Found(folder, files, stamps, {}, f"no sha256 of the files of {place} is known", unpinned=True)


def local_file(local: Path, name: str, asset: FileAsset, own: Path) -> Found:
    """One file of upstream's repository, copied into the folder `own`."""
    path = local.joinpath("files", *asset.repository.split("/"), asset.path)
    if not path.is_file():
        raise BadInput(
            f"asset {name} is not in {LOCAL_VARIABLE}={local}: {path} is missing; put {asset.path} of "
            f"{asset.repository} at {asset.commit[:7]} there, or unset {LOCAL_VARIABLE} to fetch everything"
        )
    stamps = _stamps({path.name: path}, name)
    found = stamps[path.name].sha256
    why = None if found == asset.sha256 else f"sha256 {found[:12]}... is not the pinned {asset.sha256[:12]}..."
    # Small, and read where the folder may not be at hand: by the driver of containers.
    kept = write_bytes(own / path.name, path.read_bytes())
    return Found(own, {path.name: kept}, stamps, {}, why)


def local_archive(local: Path, name: str, asset: ArchiveAsset, keys: list[str], own: Path, pins: Pins) -> Found:
    """The images `keys`, out of a zip file into the folder `own`, or where they lie in an unpacked folder."""
    file = PurePosixPath(urlparse(asset.url).path).name
    packed, unpacked = local / "archives" / file, local / "archives" / PurePosixPath(file).stem
    if packed.is_file():
        sha256 = sha256_file(packed)
        pin = asset.sha256 or pins.get(asset.url)
        files = unpack_images(packed, keys, own / "unpacked", name)
        why = None
        if pin is None:
            why = f"no sha256 of {file} is known"
        elif pin != sha256:
            why = f"sha256 {sha256[:12]}... of {file} is not the pinned {pin[:12]}..."
        return Found(own / "unpacked", files, _stamps(files, name), {"sha256": sha256}, why, unpinned=pin is None)
    if unpacked.is_dir():
        matched = match_images(keys, _names(unpacked), f"{unpacked}")
        files = {key: unpacked / member for key, member in matched.items()}
        return Found(unpacked, files, _stamps(files, name), {}, f"the images of {file} came unpacked", unpinned=True)
    raise BadInput(
        f"asset {name} is not in {LOCAL_VARIABLE}={local}: neither {packed} nor the folder {unpacked} is there; put "
        f"{asset.url} or its images there, or unset {LOCAL_VARIABLE} to fetch everything"
    )
