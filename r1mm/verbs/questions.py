"""The verb that makes a set of questions about clips from its source: questions."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1mm.verbs.common import AddVerb, print_json, runs_option, say

if TYPE_CHECKING:
    from r1mm.data.questions import Difference


def add(verb: AddVerb) -> None:
    """Add this verb."""
    made = verb(
        "questions",
        _questions,
        "make questions about clips from a source's annotations, as Open-R1-Video made its 4k, and compare them",
        "ANNOTATIONS is the source's JSON lines: query, response, videos. Each becomes a line of problem (the query\n"
        "up to its first 'Please', without <image> and <video>), solution (<answer>, the response's first two\n"
        "characters, </answer>), video, original_question and original_answer. Upstream left out what it had no clip\n"
        "of: --videos does the same. The file appears whole or not at all.\n\n"
        "  r1mm questions LLaVA-Video-large-swift/train.jsonl --videos LLaVA-Video-large-swift \\\n"
        "      --out open-r1-video-4k.jsonl --compare LLaVA-Video-large-swift-origin.jsonl\n\n"
        "makes the 4k set anew, says how it differs from the one that was published, and exits with status 3 if it\n"
        "does. The published file's paths begin with /data/wangxd/LLaVA-Video-large-swift (give it as --root for the\n"
        "same bytes); folders are not compared.\n\n"
        "  r1mm questions --recipe video-7b\n\n"
        "does it with what `r1mm assets video-7b` has fetched: annotations, clips and published questions.",
    )
    made.add_argument(
        "annotations", metavar="ANNOTATIONS", nargs="?", type=Path, help="the source's annotations, JSON lines"
    )
    made.add_argument("--recipe", help="take annotations, clips and the questions to compare from its fetched assets")
    runs_option(made)
    made.add_argument(
        "--videos", metavar="DIR", type=Path, help="leave out what has no clip in this folder; without it all are kept"
    )
    made.add_argument("--root", metavar="PATH", default="", help="what stands before every clip's path (default: none)")
    made.add_argument("--out", metavar="FILE", type=Path, help="write the questions here")
    made.add_argument(
        "--compare", metavar="FILE", type=Path, help="say how they differ from the questions in this file"
    )


def _questions(options: argparse.Namespace) -> int:
    from r1mm.data.questions import as_lines, compare_questions, make_questions, read_annotations, read_questions
    from r1mm.errors import BadInput
    from r1mm.rundir import write_text

    if (options.annotations is None) == (options.recipe is None):
        raise BadInput("give either the file ANNOTATIONS or --recipe, whose assets hold one")
    clips: Collection[str] | None = None
    if options.recipe:
        options.annotations, clips, options.compare = _fetched(options)
    if options.out is None and options.compare is None:
        raise BadInput("neither --out nor --compare is given, so nothing would come of it; give one of them")
    folder: Path | None = options.videos
    if folder is not None and not folder.is_dir():
        raise BadInput(f"--videos {folder} is no folder; give the one that the annotations' paths start from")
    annotations = read_annotations(options.annotations)

    def there_is(clip: str) -> bool:
        return (clips is None or clip in clips) and (folder is None or (folder / clip).exists())

    made, absent = make_questions(annotations, there_is, options.root)
    if not made:
        raise BadInput(
            f"{folder or 'the recipe'} has none of the {len(absent)} clips, such as {absent[0]}; give another --videos"
        )
    there = read_questions(options.compare) if options.compare else None
    difference = compare_questions(made, there) if there is not None else None
    if options.out is not None:
        write_text(options.out, as_lines(made))
        say(f"{options.out}: {len(made)} questions")
    found: dict[str, Any] = {
        "annotations": len(annotations),
        "questions": len(made),
        "without_clip": len(absent),
        "clips": len({one.video for one in made}),
        "out": str(options.out) if options.out else None,
        "difference": difference.as_dict() if difference else None,
    }
    if options.json:
        print_json(found)
    else:
        _print(found, absent, difference, options.compare)
    return 0 if difference is None or difference.none else 3


def _fetched(options: argparse.Namespace) -> tuple[Path, Collection[str], Path]:
    """A recipe's annotations, the names of its clips, and the questions to compare, as they were fetched."""
    from r1mm.data.clip_sets import questions_file
    from r1mm.data.pointers import asset_files
    from r1mm.errors import BadInput
    from r1mm.job import make_job
    from r1mm.recipe import TRAIN_SET

    job = make_job(options.recipe, None, 1, None, options.runs)
    folder, train, source = job.stage_folder("assets"), job.recipe.assets.get(TRAIN_SET), f"{TRAIN_SET}-annotations"
    if train is None or train.kind != "clips" or source not in job.recipe.assets:
        raise BadInput(f"recipe {job.recipe.name} has no questions about clips that are made of an asset {source}")
    (annotations,) = asset_files(folder, source).values()
    return annotations, asset_files(folder, train.videos), options.compare or questions_file(folder, TRAIN_SET)


def _print(found: dict[str, Any], absent: list[str], difference: "Difference | None", other: Path) -> None:
    print(f"{found['annotations']} annotations: {found['questions']} questions about {found['clips']} clips")
    if absent:
        print(
            f"{len(absent)} left out, as their clip is not there: {', '.join(absent[:3])}{' ...' * (len(absent) > 3)}"
        )
    if difference is None:
        return
    if difference.none:
        print(f"{other}: the same {difference.same} questions in the same order")
        return
    order = "" if difference.in_order else "; what both have stands in another order"
    print(
        f"{other}: {difference.same} of {difference.there} questions are the same, {difference.changed} changed, "
        f"{difference.only_here} only here, {difference.only_there} only there{order}"
    )
    for line in difference.named:
        print(f"  {line}")
