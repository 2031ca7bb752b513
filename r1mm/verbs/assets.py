"""The verb about what a full recipe takes from others: assets."""

import argparse
import os
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.verbs.common import AddVerb, print_json, say


def add(verb: AddVerb) -> None:
    """Add this verb."""
    made = verb(
        "assets",
        _assets,
        "fetch the models, datasets and files of a full recipe, or list them with their licences",
        "Everything is pinned: hub repositories by revision, files by sha256. What is there is checked and kept, what\n"
        "was cut short goes on. R1MM_ASSETS=DIR serves everything from a local folder, without network:\n"
        "  DIR/models/OWNER/NAME/  DIR/datasets/OWNER/NAME/  DIR/files/OWNER/REPOSITORY/PATH  DIR/archives/NAME.zip",
    )
    made.add_argument("recipe", help="name of a recipe (see `r1mm recipes list`), or a folder that holds recipe.yaml")
    made.add_argument(
        "--variant", help="reading of upstream whose assets are wanted; default: the recipe's own default"
    )
    place = made.add_mutually_exclusive_group()
    place.add_argument("--into", metavar="DIR", type=Path, help="leave the records of the assets in this folder")
    place.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="do the assets stage of the runs in this folder (default ./runs)",
    )
    made.add_argument(
        "--list", action="store_true", help="only list them: revision, licence, where from, size if known"
    )
    made.add_argument("--offline", action="store_true", help="use only what was fetched before (as HF_HUB_OFFLINE=1)")


def _assets(options: argparse.Namespace) -> int:
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library looks at it once, when it is imported
    from r1mm.data.access import access_from_environment
    from r1mm.job import make_job
    from r1mm.pipeline import run_stage_alone

    job = make_job(options.recipe, options.variant, 1, None, options.runs)
    if job.recipe.miniature:
        raise BadInput(f"recipe {job.recipe.name} makes its data itself; there is nothing to fetch")
    folder = options.into.resolve() if options.into else job.stage_folder("assets")
    access = access_from_environment()
    if not options.list:
        if options.into:
            from r1mm.data.assets import fetch_assets

            fetch_assets(job.recipe, folder, say, access)
        else:
            run_stage_alone(job, "assets")
    rows = [_row(folder, name, asset, access.local) for name, asset in job.recipe.assets.items()]
    if options.json:
        print_json(rows)
    else:
        for row in rows:
            print(_line(row))
    return 0


def _row(folder: Path, name: str, asset: Any, local: Path | None) -> dict[str, Any]:
    from r1mm.data.pointers import ASSET_FILE, asked_for, origin_of, read_fetched

    fetched = read_fetched(folder, name) if (folder / name / ASSET_FILE).is_file() else None
    if fetched and fetched.asked != asked_for(asset):
        fetched = None  # of another revision of the recipe
    return {
        "name": name,
        "kind": asset.kind,
        "source": origin_of(asset),
        "licence": asset.licence,
        "from": f"R1MM_ASSETS={local}" if local else "network",
        "fetched": fetched is not None,
        "identity": fetched.identity if fetched else {},
        "files": len(fetched.files) if fetched else None,
        "bytes": fetched.bytes if fetched else None,
        "verified": fetched.verified if fetched else None,
        "why_not": fetched.why_not if fetched else None,
    }


def _line(row: dict[str, Any]) -> str:
    from r1mm.data.pointers import size_text

    if row["fetched"]:
        state = f"{row['files']} files, {size_text(row['bytes'])}, "
        state += "verified" if row["verified"] else f"not verified: {row['why_not']}"
    else:
        state = f"not fetched here (from {row['from']})"
    return f"{row['name']}  ({row['kind']})  {row['source']}\n    licence: {row['licence']}; {state}"
