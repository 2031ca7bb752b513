import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1mm.cli import main
from r1mm.data.access import Access, access_from_environment
from r1mm.data.assets import fetch_assets, load_task, resolve_asset
from r1mm.data.pointers import asset_files, read_fetched
from r1mm.errors import BadInput
from r1mm.recipe import Recipe
from r1mm.rundir import files_below, sha256_file
from tests.command import r1mm
from tests.loopback import Answer, Asked, Server, serving
from tests.small_assets import (
    COMMIT,
    DATA,
    MODEL,
    PROMPTS,
    UPSTREAM,
    access_to,
    png,
    recipe_of,
    write_dataset,
    write_prompts,
    write_zip,
)


def quiet(_: str) -> None:
    pass


def fetch(recipe: Recipe, folder: Path, access: Access) -> dict[str, Any]:
    return {fetched.name: fetched for fetched in fetch_assets(recipe, folder, quiet, access)}


def small(recipe: Recipe) -> Recipe:
    """Only what comes by plain HTTPS."""
    wanted = {name: asset for name, asset in recipe.assets.items() if asset.kind in ("file", "archive")}
    return recipe.model_copy(update={"assets": wanted})


def upstream(local: Path) -> Any:
    """What serves the files of a local folder under upstream's addresses."""

    def answer(asked: Asked) -> Answer:
        if asked.path == f"/{UPSTREAM}/{COMMIT}/{PROMPTS}":
            return Answer(body=(local / "files" / UPSTREAM / PROMPTS).read_bytes())
        if asked.path == "/pictures.zip":
            return Answer(body=(local / "archives" / "pictures.zip").read_bytes())
        return Answer(404)

    return answer


def served(tmp_path: Path, local: Path, server: Server) -> tuple[Recipe, Access]:
    recipe = small(recipe_of(local, url=f"{server.address}/pictures.zip"))
    return recipe, access_to(tmp_path, upstream=server.address)


def test_a_local_folder_serves_everything(tmp_path: Path, local: Path) -> None:
    recipe, said = recipe_of(local), []
    found = {f.name: f for f in fetch_assets(recipe, tmp_path / "a", said.append, access_to(tmp_path, local=local))}
    assert list(found) == list(recipe.assets)
    assert found["model"].verified
    assert found["prompts"].verified
    assert [name for name, asset in found.items() if asset.unpinned] == ["train", "pictures"]
    assert found["train"].why_not == f"no sha256 of the files of {DATA}@bbbbbbb is known"
    assert found["pictures"].why_not == "no sha256 of pictures.zip is known"
    assert any("licence: Apache-2.0" in line for line in said)
    assert resolve_asset(tmp_path / "a", "model") == local / "models" / MODEL
    copied = resolve_asset(tmp_path / "a", "prompts")  # small files stand in the run, where a driver can read them
    assert copied.read_bytes() == (local / "files" / UPSTREAM / PROMPTS).read_bytes()
    assert copied.is_relative_to(tmp_path / "a")
    assert [path.read_bytes() for path in asset_files(tmp_path / "a", "pictures").values()] == [png(0), png(1)]
    # Nothing large was copied.
    assert sum(stamp.bytes for stamp in files_below(tmp_path / "a", tmp_path).values()) < 8000


def test_what_is_recorded_does_not_depend_on_where_things_lie(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))
    shutil.copytree(local, tmp_path / "elsewhere")
    fetch(recipe, tmp_path / "b", access_to(tmp_path, local=tmp_path / "elsewhere"))
    assert files_below(tmp_path / "a", tmp_path / "a") == files_below(tmp_path / "b", tmp_path / "b")
    # A moved folder is found again, and the record stays what it was.
    before = files_below(tmp_path / "a", tmp_path)
    local.rename(tmp_path / "gone")
    with pytest.raises(
        BadInput, match=r"asset model: .* is missing, it was there when it was fetched; run `r1mm assets"
    ):
        resolve_asset(tmp_path / "a", "model")
    fetch(recipe, tmp_path / "a", access_to(tmp_path, local=tmp_path / "gone"))
    assert resolve_asset(tmp_path / "a", "model").is_relative_to(tmp_path / "gone")
    assert files_below(tmp_path / "a", tmp_path) == before


def test_what_differs_from_its_pin_is_served_and_says_so(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    write_prompts(local / "files" / UPSTREAM / PROMPTS, [1, 2, 3])
    write_dataset(local / "datasets" / DATA, [1, 2, 3])
    shard = local / "models" / MODEL / "model-00001-of-00002.safetensors"
    shutil.copy(shard.with_name("model-00002-of-00002.safetensors"), shard)
    index = shard.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"layer.2": "model-00002-of-00002.safetensors"}}))
    found = fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))
    assert not found["model"].verified
    assert "model-00001-of-00002.safetensors is not the one of Owner/Tiny-VL@aaaaaaa" in found["model"].why_not
    assert found["prompts"].why_not.startswith("sha256 ")
    assert found["train"].why_not == f"it has 3 rows, {DATA}@bbbbbbb has 4"


def test_an_unpacked_folder_stands_for_its_archive(tmp_path: Path, local: Path) -> None:
    recipe, archives = recipe_of(local), local / "archives"
    (archives / "pictures.zip").unlink()
    with pytest.raises(BadInput, match=r"neither .*pictures.zip nor the folder .*pictures is there"):
        fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))
    (archives / "pictures" / "images").mkdir(parents=True)
    (archives / "pictures" / "images" / "item_0.png").write_bytes(png(0))
    with pytest.raises(BadInput, match=r"lacks 1 of the 2 images .* images/item_1.png"):
        fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))
    (archives / "pictures" / "images" / "item_1.png").write_bytes(png(1))
    found = fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))
    assert found["pictures"].why_not == "the images of pictures.zip came unpacked"
    assert asset_files(tmp_path / "a", "pictures")["images/item_1.png"].is_relative_to(archives)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (f"models/{MODEL}", rf"asset model is not in R1MM_ASSETS=.*put {MODEL} there as the hub has it"),
        (f"datasets/{DATA}", "asset train is not in R1MM_ASSETS"),
        (f"files/{UPSTREAM}", rf"asset prompts is not in R1MM_ASSETS=.*put {PROMPTS} of {UPSTREAM} at ccccccc there"),
    ],
)
def test_what_is_missing_from_a_local_folder_is_named(tmp_path: Path, local: Path, gone: str, said: str) -> None:
    recipe = recipe_of(local)
    shutil.rmtree(local / gone)
    with pytest.raises(BadInput, match=said):
        fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))


def test_an_archive_image_that_is_none_is_refused(tmp_path: Path, local: Path) -> None:
    recipe = recipe_of(local)
    write_zip(local / "archives" / "pictures.zip", {"images/item_0.png": png(0), "images/item_1.png": b"<html>"})
    with pytest.raises(BadInput, match=r"asset pictures: images/item_1.png: its image is none of PNG"):
        fetch(recipe, tmp_path / "a", access_to(tmp_path, local=local))


def test_a_changed_file_is_found_when_it_is_used(tmp_path: Path, local: Path) -> None:
    recipe, folder = recipe_of(local), tmp_path / "a"
    fetch(recipe, folder, access_to(tmp_path, local=local))
    shard = local / "models" / MODEL / "model-00001-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.touch()  # another time alone is no change
    assert resolve_asset(folder, "model")
    shard.write_bytes(whole[:-1] + b"x")
    os.utime(shard, ns=(1, 1))
    with pytest.raises(BadInput, match=r"model-00001-of-00002.safetensors has changed: sha256 .* recorded"):
        resolve_asset(folder, "model")
    shard.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match=r"has \d+ bytes, recorded \d+: truncated or changed"):
        resolve_asset(folder, "model")


def test_other_data_never_takes_the_place_of_what_a_run_was_made_with(tmp_path: Path, local: Path) -> None:
    recipe, folder = recipe_of(local), tmp_path / "a"
    fetch(recipe, folder, access_to(tmp_path, local=local))
    before = files_below(folder, folder)
    write_dataset(local / "datasets" / DATA, [6, 5, 4, 3])
    with pytest.raises(BadInput, match=r"asset train is not what .* was made with: data/train-00000-of-00002.parquet"):
        fetch(recipe, folder, access_to(tmp_path, local=local))
    assert files_below(folder, folder) == before


def test_files_and_archives_come_by_their_addresses(tmp_path: Path, local: Path) -> None:
    with serving(upstream(local)) as server:
        recipe, access = served(tmp_path, local, server)
        found = fetch(recipe, tmp_path / "a", access)
        assert all(asset.verified for asset in found.values())
        assert found["prompts"].identity == {"commit": COMMIT}
        sha256 = sha256_file(local / "archives" / "pictures.zip")
        assert found["pictures"].identity == {"sha256": sha256}
        assert json.loads((tmp_path / "a" / "pins.json").read_text()) == {f"{server.address}/pictures.zip": sha256}
        assert list(load_task(tmp_path / "a", recipe, "held-out")["item"]) == ["item_0", "item_1"]
        asked = len(server.asked)
        # Again, into another run: what was fetched is used; into the same run: what is there is kept.
        fetch(recipe, tmp_path / "b", access)
        fetch(recipe, tmp_path / "a", access)
        assert len(server.asked) == asked
    assert files_below(tmp_path / "a", tmp_path / "a") == files_below(tmp_path / "b", tmp_path / "b")


def test_an_archive_that_changed_since_the_first_time_is_refused(tmp_path: Path, local: Path) -> None:
    with serving(upstream(local)) as server:
        recipe, access = served(tmp_path, local, server)
        fetch(recipe, tmp_path / "a", access)
        write_zip(local / "archives" / "pictures.zip", {f"images/item_{i}.png": png(9) for i in range(2)})
        shutil.rmtree(tmp_path / "downloads")
        shutil.rmtree(tmp_path / "a" / "pictures")
        with pytest.raises(
            BadInput, match=r"pictures.zip is \w+ now, it was \w+ when it was first fetched .*pins.json"
        ):
            fetch(recipe, tmp_path / "a", access)
    assert not (tmp_path / "a" / "pictures").exists()


def test_an_archive_that_cannot_be_used_is_not_trusted(tmp_path: Path, local: Path) -> None:
    good = (local / "archives" / "pictures.zip").read_bytes()
    (local / "archives" / "pictures.zip").write_bytes(b"<html>Come back later</html>")
    with serving(upstream(local)) as server:
        recipe, access = served(tmp_path, local, server)
        with pytest.raises(BadInput, match=r"pictures.zip is damaged or no zip file .* delete .* and fetch it again"):
            fetch(recipe, tmp_path / "a", access)
        assert not (tmp_path / "a" / "pins.json").exists()
        (local / "archives" / "pictures.zip").write_bytes(good)
        next((tmp_path / "downloads").rglob("pictures.zip")).unlink()
        assert fetch(recipe, tmp_path / "a", access)["pictures"].verified


def test_offline_uses_what_was_fetched_or_says_what_is_missing(tmp_path: Path, local: Path) -> None:
    offline = access_to(tmp_path, offline=True)
    recipe = recipe_of(local)
    with pytest.raises(BadInput, match=rf"model {MODEL} at a+ is not in the hub's cache"):
        fetch(recipe, tmp_path / "a", offline)
    with pytest.raises(
        BadInput, match=rf"asset prompts \({UPSTREAM}@ccccccc:{PROMPTS}\) was not fetched before .* run"
    ):
        fetch(small(recipe), tmp_path / "a", offline)
    with serving(upstream(local)) as server:
        recipe, access = served(tmp_path, local, server)
        fetch(recipe, tmp_path / "a", access)
    found = fetch(recipe, tmp_path / "b", offline)
    assert found["pictures"].identity == read_fetched(tmp_path / "a", "pictures").identity


def test_the_recipe_s_next_revision_fetches_anew(tmp_path: Path, local: Path) -> None:
    recipe, folder, access = recipe_of(local), tmp_path / "a", access_to(tmp_path, local=local)
    fetch(recipe, folder, access)
    write_prompts(local / "files" / UPSTREAM / PROMPTS, [4])
    newer = recipe.assets["prompts"].model_copy(update={"sha256": sha256_file(local / "files" / UPSTREAM / PROMPTS)})
    assert fetch(recipe_of(local, prompts=newer), folder, access)["prompts"].verified


def test_damaged_records_are_named(tmp_path: Path, local: Path) -> None:
    recipe, folder = recipe_of(local), tmp_path / "a"
    with pytest.raises(BadInput, match=r"asset model is not there .* run `r1mm assets RECIPE` again"):
        resolve_asset(folder, "model")
    fetch(recipe, folder, access_to(tmp_path, local=local))
    (folder / "model" / ".where.json").write_text("{}")
    with pytest.raises(BadInput, match=r".where.json is damaged"):
        resolve_asset(folder, "model")
    (folder / "model" / ".where.json").unlink()
    with pytest.raises(BadInput, match=r"asset model is not there \(.*where.json is missing\)"):
        resolve_asset(folder, "model")


def test_the_environment_names_a_folder_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("R1MM_ASSETS", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match=r"R1MM_ASSETS=.*nowhere is no folder; give one with models/, datasets/"):
        access_from_environment()


def test_the_verb_lists_with_licences_and_touches_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert main(["assets", "r1v-clevr-2b", "--into", str(tmp_path / "a"), "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["model"]["licence"] == "Apache-2.0"
    assert rows["train"]["source"] == "leonardPKU/clevr_cogen_a_train@d5a8da6"
    assert not any(row["fetched"] for row in rows.values())
    assert list(tmp_path.iterdir()) == []


def test_the_verb_refuses_what_has_nothing_to_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assets", "r1v-mini", "--list"]) == 2
    assert "recipe r1v-mini makes its data itself" in capsys.readouterr().err


def test_the_verb_offline_names_what_is_missing(tmp_path: Path) -> None:
    refused = r1mm("assets", "r1v-clevr-2b", "--into", tmp_path / "a", "--offline", HF_HOME=str(tmp_path / "hf"))
    assert refused.returncode == 2
    assert "model Qwen/Qwen2-VL-2B-Instruct at 895c3a49bc3fa70a340399125c650a463535e71c is not in" in refused.stderr
