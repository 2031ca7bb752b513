"""The verb that makes a set of questions about clips from its source: questions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1mm.verbs.common import AddVerb, print_json, say

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
        "same bytes); folders are not compared.",
    )
    made.add_argument("annotations", metavar="ANNOTATIONS", type=Path, help="the source's annotations, JSON lines")
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

    if options.out is None and options.compare is None:
        raise BadInput("neither --out nor --compare is given, so nothing would come of it; give one of them")
    folder: Path | None = options.videos
    if folder is not None and not folder.is_dir():
        raise BadInput(f"--videos {folder} is no folder; give the one that the annotations' paths start from")
    annotations = read_annotations(options.annotations)
    made, absent = make_questions(annotations, lambda clip: folder is None or (folder / clip).exists(), options.root)
    if not made:
        raise BadInput(f"{folder} has none of the {len(absent)} clips, such as {absent[0]}; give another --videos")
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
