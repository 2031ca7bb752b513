"""Clips of a dataset, decoded once and ahead by threads: the real decoder, real files, the loader that trainers use."""

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from trl.trainer.utils import RepeatSampler

from r1mm.data import clips_ahead as ahead
from r1mm.data.clips import Clip, Sampling, decode_clip, write_mp4
from r1mm.data.clips_ahead import clips_ahead, usable_clips
from r1mm.errors import BadInput

SMALL = Sampling(frames=4, min_pixels=28 * 28, max_pixels=28 * 28)


def mp4(level: int) -> bytes:
    return write_mp4(np.full((4, 28, 28, 3), level, np.uint8), 2.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six rows, two of one video, the fourth a file."""
    path = tmp_path / "third.mp4"
    path.write_bytes(mp4(90))
    videos: list[dict[str, Any]] = [{"bytes": mp4(30 * i), "path": None} for i in range(3)]
    videos += [{"bytes": None, "path": str(path)}, videos[0], {"bytes": mp4(120), "path": None}]
    return Dataset.from_dict({"video": videos, "item": [f"item-{i}" for i in range(6)]})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is really decoded, in a list that grows."""
    names: list[str] = []

    def counted(encoded: Any, where: str, sampling: Sampling) -> Clip:
        names.append(where)
        return decode_clip(encoded, where, sampling)

    monkeypatch.setattr(ahead, "decode_clip", counted)
    return names


def test_rows_of_a_video_share_a_clip_that_is_decoded_once(dataset: Dataset, decoded: list[str]) -> None:
    rows = clips_ahead(dataset, SMALL)
    batch = rows.__getitems__([0, 0, 4, 3, 3, 1])
    first = batch[0]["video"]
    assert batch[1]["video"] is first
    assert batch[2]["video"] is first  # of another row
    assert batch[3]["video"] is batch[4]["video"]
    assert copy.deepcopy(batch)[2]["video"] is first
    assert [round(row["video"].frames.float().mean().item()) for row in batch] == [0, 0, 0, 90, 90, 30]
    assert rows.__getitems__([4])[0]["video"] is first  # read again
    assert sorted(decoded) == ["item-0", "item-1", "item-3"]
    assert "video" not in rows.select_columns(["item"])[0]


def test_the_clips_kept_are_bounded(dataset: Dataset, decoded: list[str]) -> None:
    rows = clips_ahead(dataset, SMALL, kept=2)
    for index in (0, 1, 0, 2, 0, 1):  # 2 drives out 1, the one not read for the longest
        rows[index]["video"].frames.sum()
    assert decoded == ["item-0", "item-1", "item-2", "item-1"]


def test_the_next_batch_is_decoded_while_this_one_is_worked_on(dataset: Dataset, monkeypatch: Any) -> None:
    done = {f"item-{i}": threading.Event() for i in range(6)}

    def announced(encoded: Any, where: str, sampling: Sampling) -> Clip:
        clip = decode_clip(encoded, where, sampling)
        done[where].set()
        return clip

    monkeypatch.setattr(ahead, "decode_clip", announced)
    order = RepeatSampler(range(4), mini_repeat_count=2, batch_size=1, shuffle=False)
    rows = clips_ahead(dataset, SMALL)
    loader = Accelerator(cpu=True).prepare(DataLoader(rows, batch_size=2, sampler=order, collate_fn=list))
    for number, batch in enumerate(loader):
        assert [row["item"] for row in batch] == [f"item-{number}"] * 2
        assert batch[0]["video"] is batch[1]["video"]
        if number < 3:  # while this batch is held, the next is decoded without being asked for
            assert done[f"item-{number + 1}"].wait(timeout=30)


def test_batches_of_loader_processes_share_clips_as_well(dataset: Dataset) -> None:
    rows = clips_ahead(dataset, SMALL)
    rows[0]["video"].frames.sum()  # threads of this process, which a fork lacks
    loader = DataLoader(rows, batch_size=3, sampler=[0, 0, 3], collate_fn=list, num_workers=1, timeout=60)
    [batch] = list(loader)
    assert batch[0]["video"] is batch[1]["video"]
    assert batch[2]["video"].frames.float().mean().round() == 90
    assert torch.equal(pickle.loads(pickle.dumps(rows))[3]["video"].frames, batch[2]["video"].frames)


def test_a_clip_that_does_not_decode_names_its_item_where_it_is_used(dataset: Dataset) -> None:
    broken = Dataset.from_dict({"video": [dataset[0]["video"], {"bytes": b"x" * 99, "path": None}], "item": ["a", "b"]})
    batch = clips_ahead(broken, SMALL).__getitems__([0, 1, 1])
    assert batch[0]["video"].frames.shape == (4, 3, 28, 28)
    for row in batch[1:]:
        with pytest.raises(BadInput, match="^b has a clip that cannot be read"):
            _ = row["video"].frames


def test_clips_that_do_not_decode_are_left_out_and_named(
    dataset: Dataset, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"bytes": b"", "path": None}
    gone = {"bytes": None, "path": "gone.mp4"}
    videos = [*(row["video"] for row in dataset), bad, gone, gone]
    problems = [f"Question {i}?" for i in range(9)]
    usable, refused = usable_clips(Dataset.from_dict({"video": videos, "problem": problems}), SMALL, workers=1)
    assert usable["problem"] == problems[:6]
    assert [reason.split(";")[0] for reason in refused] == [
        "the item that asks 'Question 6?' has an empty clip of 0 bytes",
        "the item that asks 'Question 7?' (gone.mp4) has no clip: neither bytes nor a file at 'gone.mp4'",
        "the item that asks 'Question 7?' (gone.mp4) has no clip: neither bytes nor a file at 'gone.mp4'",
    ]
    assert len(decoded) == 7  # of nine rows
    assert "9/9" in capsys.readouterr().err
    with pytest.raises(BadInput, match="none of 2 clips decodes; the first: .*gone.mp4"):
        usable_clips(Dataset.from_dict({"video": [gone, gone]}), SMALL)


def test_pixels_do_not_depend_on_the_threads(dataset: Dataset) -> None:
    alone = [decode_clip(row["video"], "clip", SMALL).frames for row in dataset]
    together = [row["video"].frames for row in clips_ahead(dataset, SMALL, workers=4).__getitems__(list(range(6)))]
    assert all(map(torch.equal, alone, together))
