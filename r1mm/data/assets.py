"""Pinned assets: fetched, checked, and written down with what they turned out to be.

The front door of this room for what a run needs of a full recipe's assets.
"""

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, urlparse

from r1mm.asset_kinds import (
    ArchiveAsset,
    Asset,
    ClipsAsset,
    DatasetAsset,
    FileAsset,
    ModelAsset,
    RepositoryAsset,
    VideosAsset,
)
from r1mm.data.access import Access, access_from_environment
from r1mm.data.archive import unpack_images
from r1mm.data.checkpoint import check_checkpoint
from r1mm.data.clip_sets import wanted_clips
from r1mm.data.download import download
from r1mm.data.listed import count_rows
from r1mm.data.load import check_images, check_rows, check_solution, check_text, load_task, load_train, prompt_rows
from r1mm.data.local import Found, local_archive, local_dataset, local_file, local_model, local_repository
from r1mm.data.pointers import (
    ASSET_FILE,
    Fetched,
    Pins,
    asked_for,
    asset_files,
    origin_of,
    read_fetched,
    read_where,
    resolve_asset,
    size_text,
    write_pointer,
)
from r1mm.data.questions import match_clips, read_questions
from r1mm.data.selection import image_key, matching_files, model_files, split_shards
from r1mm.errors import BadInput
from r1mm.recipe import Recipe, digest
from r1mm.rundir import make_folder, sha256_file, stamp, write_bytes

__all__ = ["Fetched", "fetch_assets", "load_task", "load_train", "read_fetched", "resolve_asset"]

Say = Callable[[str], None]


def _wanted_images(folder: Path, asset: ArchiveAsset) -> list[str]:
    """The images that the prompts file of an archive names; the prompts file was fetched before."""
    path = resolve_asset(folder, asset.items)
    return list(dict.fromkeys(image_key(row["image_path"], f"{path}:{i}") for i, row in prompt_rows(path)))


# What the hub's repositories hold, and what of them is wanted.
_Hosted = ModelAsset | DatasetAsset | ClipsAsset | VideosAsset | RepositoryAsset


def _choice(folder: Path, asset: _Hosted) -> Callable[[list[str]], list[str]]:
    what = f"{'model' if isinstance(asset, ModelAsset) else 'dataset'} {origin_of(asset)}"
    if isinstance(asset, ModelAsset):
        return lambda names: model_files(names, what)
    if isinstance(asset, DatasetAsset):
        return lambda names: split_shards(names, asset.split, what)
    if isinstance(asset, VideosAsset):
        wanted = wanted_clips(folder, asset.items)
        return lambda names: sorted(set(match_clips(wanted, names, what).values()))
    patterns = [*([asset.file] if asset.file else []), *(asset.files if isinstance(asset, RepositoryAsset) else [])]
    return lambda names: matching_files(names, patterns, what)


def _from_hub(folder: Path, asset: _Hosted, access: Access, pins: Pins) -> Found:
    from r1mm.data.hub import Wanted, fetch_repository

    sha256 = asset.sha256 if isinstance(asset, ModelAsset) else {}
    if isinstance(asset, ClipsAsset) and asset.sha256:
        sha256 = {asset.file: asset.sha256}
    kind: Literal["model", "dataset"] = "model" if isinstance(asset, ModelAsset) else "dataset"
    got = fetch_repository(Wanted(kind, asset.repo, asset.revision, _choice(folder, asset), sha256), access, pins)
    return Found(got.folder, got.files, got.stamps, {"revision": got.revision}, None)


def _missing_offline(name: str, asset: Asset, path: Path) -> BadInput:
    return BadInput(
        f"asset {name} ({origin_of(asset)}) was not fetched before ({path} is missing), and the network is not to be "
        "used; run `r1mm assets RECIPE` once where there is one, or serve it from a folder with R1MM_ASSETS=DIR"
    )


def _downloaded_file(own: Path, name: str, asset: FileAsset, access: Access) -> Found:
    kept = access.downloads.joinpath("files", *asset.repository.split("/"), asset.commit, *asset.path.split("/"))
    if access.offline and not kept.is_file():
        raise _missing_offline(name, asset, kept)
    if not access.offline or sha256_file(kept) != asset.sha256:
        if access.offline:
            raise BadInput(
                f"asset {name}: {kept} is not what was fetched (another sha256); delete it and fetch it again"
            )
        url = f"{access.upstream}/{asset.repository}/{asset.commit}/{quote(asset.path)}"
        download(url, kept, patience=access.patience, sha256=asset.sha256, title=name)
    path = write_bytes(own / kept.name, kept.read_bytes())
    return Found(own, {kept.name: path}, {kept.name: stamp(path)}, {"commit": asset.commit}, None)


def _downloaded_archive(
    folder: Path, name: str, asset: ArchiveAsset, keys: list[str], access: Access, pins: Pins
) -> Found:
    file = PurePosixPath(urlparse(asset.url).path).name
    # Many archives are called images.zip: each address has a folder of its own.
    kept = access.downloads / "archives" / digest(asset.url)[:16] / file
    if access.offline and not kept.is_file():
        raise _missing_offline(name, asset, kept)
    sha256 = (
        sha256_file(kept)
        if access.offline
        else download(asset.url, kept, patience=access.patience, sha256=asset.sha256, title=name).sha256
    )
    if asset.sha256 not in (None, sha256):
        raise BadInput(
            f"asset {name}: {kept} has sha256 {sha256}, the recipe pins {asset.sha256}; delete it and fetch it again"
        )
    before = pins.get(asset.url)
    if before not in (None, sha256):
        pins.agree(asset.url, sha256)
    files = unpack_images(kept, keys, folder / name / "unpacked", name)
    if asset.sha256 is None:
        pins.agree(asset.url, sha256)  # only now: an archive that cannot be used is not one to trust
    stamps = {key: stamp(path) for key, path in files.items()}
    return Found(folder / name / "unpacked", files, stamps, {"sha256": sha256}, None)


def _find(folder: Path, name: str, asset: Asset, access: Access, pins: Pins) -> Found:
    if isinstance(asset, ModelAsset):
        return local_model(access.local, name, asset) if access.local else _from_hub(folder, asset, access, pins)
    if isinstance(asset, DatasetAsset):
        return local_dataset(access.local, name, asset) if access.local else _from_hub(folder, asset, access, pins)
    if isinstance(asset, ClipsAsset | VideosAsset | RepositoryAsset):
        if access.local:
            return local_repository(access.local, name, asset, _choice(folder, asset))
        return _from_hub(folder, asset, access, pins)
    if isinstance(asset, FileAsset):
        return (
            local_file(access.local, name, asset, folder / name)
            if access.local
            else _downloaded_file(folder / name, name, asset, access)
        )
    keys = _wanted_images(folder, asset)
    if access.local:
        return local_archive(access.local, name, asset, keys, folder / name, pins)
    return _downloaded_archive(folder, name, asset, keys, access, pins)


def _check_questions(path: Path) -> int:
    """The number of questions.  BadInput names a line that is none."""
    questions = read_questions(path)
    for number, question in enumerate(questions, 1):
        check_solution(question.solution, f"{path}:{number}")
    return len(questions)


def _check_listed(asset: DatasetAsset | ClipsAsset | RepositoryAsset, found: Found) -> int | None:
    """How many rows were found, each looked at; None where nothing lists them.  BadInput names a bad one."""
    if isinstance(asset, ClipsAsset):
        return _check_questions(found.files[asset.file])
    if isinstance(asset, DatasetAsset):
        check = check_text if asset.untagged else check_solution
        return check_rows(list(found.files.values()), f"dataset {asset.repo}", check)
    if not asset.file:
        return None
    listing = matching_files(found.files, [asset.file], f"dataset {origin_of(asset)}")
    return sum(count_rows(found.files[name]) for name in listing)


def _check(name: str, asset: Asset, found: Found, recipe: Recipe, local: bool) -> str | None:
    """Look into what was found; why it is not known to be the pinned asset, or None.  BadInput where it is unusable."""
    if isinstance(asset, ModelAsset):
        check_checkpoint(found.root)
    elif isinstance(asset, DatasetAsset | ClipsAsset | RepositoryAsset):
        rows = _check_listed(asset, found)
        if asset.rows not in (None, rows):
            if not local:
                part = f"split {asset.split}" if isinstance(asset, DatasetAsset) else f"file {asset.file}"
                raise BadInput(
                    f"asset {name}: {asset.repo} has {rows} rows in {part}, the recipe says {asset.rows}; correct the "
                    f"{part.split()[0]} or the number in the recipe"
                )
            return f"it has {rows} rows, {origin_of(asset)} has {asset.rows}"
    elif isinstance(asset, ArchiveAsset):
        check_images(found.files, f"asset {name}")
    return found.why_not


def _kept(folder: Path, name: str, asset: Asset, access: Access) -> Fetched | None:
    """What an earlier call fetched from the same place, if it is whole."""
    if not (folder / name / ASSET_FILE).is_file():
        return None
    fetched = read_fetched(folder, name)
    origin = str(access.local) if access.local else None
    try:
        if fetched.asked != asked_for(asset) or read_where(folder, name).origin != origin:
            return None
        asset_files(folder, name)
    except BadInput:
        return None  # what is missing or damaged is found again, and must then be the same
    return fetched


def _fetch(folder: Path, name: str, recipe: Recipe, access: Access, pins: Pins) -> Fetched:
    asset = recipe.assets[name]
    if (before := folder / name / ASSET_FILE).is_file() and read_fetched(folder, name).asked != asked_for(asset):
        shutil.rmtree(before.parent)  # of another revision of the recipe
    found = _find(folder, name, asset, access, pins)
    why_not = _check(name, asset, found, recipe, access.local is not None)
    fetched = Fetched(
        name=name,
        kind=asset.kind,
        asked=asked_for(asset),
        source=origin_of(asset),
        identity=found.identity,
        files=dict(sorted(found.stamps.items())),
        licence=asset.licence,
        verified=why_not is None,
        why_not=why_not,
        unpinned=found.unpinned and why_not == found.why_not,
    )
    return write_pointer(folder, fetched, found.root, found.files, access.local)


def fetch_assets(recipe: Recipe, folder: Path, say: Say, access: Access | None = None) -> list[Fetched]:
    """Bring every asset of a full recipe to where it can be used, and write down in `folder` what each one is.

    What is there already is checked and kept; what was cut short goes on.  `folder/<asset>/asset.json` is the record,
    beside it lie small files and unpacked images; checkpoints and datasets stay in the hub's cache or in R1MM_ASSETS.
    `access` is what the environment says unless given.  Raises BadInput, or StageFailed where the same call later goes
    on: see download.py and hub.py.
    """
    access = access or access_from_environment()
    make_folder(folder)
    pins = Pins(folder)
    done: dict[str, Fetched] = {}
    # Archives and clips last: what is wanted of them stands in other assets.
    order = sorted(recipe.assets.items(), key=lambda item: item[1].kind in ("archive", "videos"))
    for number, (name, asset) in enumerate(order, 1):
        head = f"asset {number}/{len(order)} {name} ({origin_of(asset)}; licence: {asset.licence})"
        kept = _kept(folder, name, asset, access)
        if kept is None:
            say(head)
        done[name] = kept or _fetch(folder, name, recipe, access, pins)
        state = "verified" if done[name].verified else f"not verified: {done[name].why_not}"
        size = f"{len(done[name].files)} files, {size_text(done[name].bytes)}"
        say(f"{head}: there, {state}" if kept else f"  {size}; {state}")
    return [done[name] for name in recipe.assets]
