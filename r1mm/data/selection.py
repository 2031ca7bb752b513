"""Which files of a checkpoint, a dataset or an archive are wanted, by their names alone."""

import fnmatch
import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from r1mm.errors import BadInput

# Weights, and the small texts beside them: configuration, tokenizer, processor, chat template.
_MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
_NUMBERED = re.compile(r"(.*?)-?(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet")


def model_files(names: Iterable[str], what: str) -> list[str]:
    """The files of a checkpoint that are used.  BadInput when its weights are only there as pickles, or not at all."""
    names = list(names)
    top = [name for name in names if "/" not in name]
    wanted = sorted(name for name in top if name.endswith(_MODEL_SUFFIXES))
    if not any(name.endswith(".safetensors") for name in wanted):
        pickled = sorted(name for name in top if name.endswith(PICKLED_SUFFIXES))
        if pickled:
            raise BadInput(
                f"{what} has its weights only as {', '.join(pickled[:3])}: pickles can run any code when they are "
                "loaded, and are refused; convert them to safetensors, or name a revision that has them"
            )
        raise BadInput(f"{what} has no *.safetensors file (it has {', '.join(top[:8]) or 'nothing'}); name another")
    if "config.json" not in wanted:
        raise BadInput(f"{what} has no config.json (it has {', '.join(top[:8])}); give a checkpoint as the hub has it")
    return wanted


def _splits_named(name: str) -> set[str]:
    words = re.split(r"[^a-z]+", name.lower())
    return {split for split in _SPLITS if split in words}


def _stem(name: str) -> str | None:
    """What a shard's name says before its number: a split that has a name of its own, such as valA."""
    found = _NUMBERED.fullmatch(PurePosixPath(name).name)
    return found[1] if found else None


def split_shards(names: Iterable[str], split: str, what: str) -> list[str]:
    """The parquet files of one split, in order.  Files that name no split at all are `train`, as the hub has it.

    BadInput when there are none, or one of a numbered set is missing.
    """
    shards = sorted(name for name in names if name.endswith(".parquet"))
    named = [
        name
        for name in shards
        if split in _splits_named(name) or split in PurePosixPath(name).parts[:-1] or split == _stem(name)
    ]
    if not named and split == "train":
        named = [name for name in shards if not _splits_named(name)]
    if not named:
        raise BadInput(
            f"{what} has no parquet file of split {split!r} (it has {', '.join(shards[:5]) or 'none'}); "
            "write the right `split:` in the recipe"
        )
    sets: dict[tuple[str, int], set[int]] = {}
    for name in named:
        if found := _NUMBERED.fullmatch(name):
            sets.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
    for (stem, count), numbers in sets.items():
        if missing := sorted(set(range(count)) - numbers):
            raise BadInput(
                f"{what} lacks shard {missing[0]:05d} of {count:05d} of {stem} ({len(numbers)} are there); "
                "bring the missing files"
            )
    return named


def matching_files(names: Iterable[str], patterns: Iterable[str], what: str) -> list[str]:
    """The files that any of `patterns` (`*.json`) fits, of alternatives (`videos/*|videos.tar.part.*`) the first.

    BadInput names a pattern that fits none.
    """
    names, wanted = list(names), set()
    for pattern in patterns:
        choices = pattern.split("|")
        fitting = next((found for choice in choices if (found := fnmatch.filter(names, choice))), [])
        if not fitting:
            raise BadInput(
                f"{what} has no file {' or '.join(choices)} (it has {', '.join(sorted(names)[:8]) or 'none'})"
            )
        wanted.update(fitting)
    return sorted(wanted)


def image_key(image_path: str, what: str) -> str:
    """An item's image path in plain form, without `./`.  BadInput when it is absolute or leads upwards."""
    path = PurePosixPath(image_path)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadInput(f"{what}: image_path {image_path!r} must be a path inside the archive; correct the prompts file")
    return str(path)


def match_images(keys: Iterable[str], members: Collection[str], what: str) -> dict[str, str]:
    """The member for each image key: the one whose path ends as the key does, by as many parts as can be had.

    BadInput lists keys without a member, and names a key that two members fit equally well.
    """
    by_name: dict[str, list[str]] = {}
    for member in members:
        by_name.setdefault(PurePosixPath(member).name, []).append(member)

    def agreement(key: str, member: str) -> int:
        pairs = zip(reversed(PurePosixPath(key).parts), reversed(PurePosixPath(member).parts), strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), len(PurePosixPath(key).parts))

    matched, missing = {}, []
    for key in keys:
        candidates = sorted(by_name.get(PurePosixPath(key).name, []), key=lambda member: -agreement(key, member))
        if not candidates:
            missing.append(key)
        elif len(candidates) > 1 and agreement(key, candidates[0]) == agreement(key, candidates[1]):
            raise BadInput(
                f"{what}: {key} could be {candidates[0]} or {candidates[1]}, and nothing tells which; remove one"
            )
        else:
            matched[key] = candidates[0]
    if missing:
        wanted = len(missing) + len(matched)
        raise BadInput(
            f"{what} lacks {len(missing)} of the {wanted} images that the prompts file names: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}; upstream's archive is known to have come "
            "with other names (Deep-Agent/R1-V#80): bring the images of these names, in a folder with R1MM_ASSETS=DIR"
        )
    return matched
