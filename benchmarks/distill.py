"""Memory and time of `r1mm distill questions` and `build` by the size of what they are given; what a picture costs.

The files are made here: scenes and questions with every key that CLEVR's have, so that 70,000 pictures and 700,000
questions are as large as CLEVR's; pictures of noise, since nothing compresses those.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

SIZES, COLORS = ("small", "large"), ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS, SHAPES = ("rubber", "metal"), ("cube", "sphere", "cylinder")
ASKED = (
    "How many {} things are both on the right side of the big {} rubber thing and left of the purple ball?",
    "Is the number of {} cylinders greater than the number of {} objects?",
    "What color is the {} cube that is behind the {} cylinder?",
    "There is a {} sphere in front of the {} block; what is its material?",
)


def scene(number: int, draw: random.Random) -> dict[str, object]:
    count = draw.randint(3, 10)
    objects = [
        {
            "color": draw.choice(COLORS),
            "size": draw.choice(SIZES),
            "rotation": draw.uniform(0, 360),
            "shape": draw.choice(SHAPES),
            "3d_coords": [draw.uniform(-3, 3), draw.uniform(-3, 3), 0.7],
            "material": draw.choice(MATERIALS),
            "pixel_coords": [draw.randint(0, 479), draw.randint(0, 319), draw.uniform(7, 14)],
        }
        for _ in range(count)
    ]
    sides = ("right", "behind", "front", "left")
    return {
        "image_index": number,
        "objects": objects,
        "relationships": {side: [draw.sample(range(count), count // 2) for _ in objects] for side in sides},
        "image_filename": picture_name(number),
        "split": "train",
        "directions": {side: [draw.uniform(-1, 1) for _ in range(3)] for side in (*sides, "above", "below")},
    }


def question(number: int, picture: int, draw: random.Random) -> dict[str, object]:
    text = draw.choice(ASKED).format(draw.choice(COLORS), draw.choice(COLORS))
    program = [
        {"inputs": [step - 1] if step else [], "function": "filter_color", "value_inputs": [draw.choice(COLORS)]}
        for step in range(draw.randint(6, 14))
    ]
    return {
        "image_index": picture,
        "program": program,
        "question_index": number,
        "image_filename": picture_name(picture),
        "question_family_index": draw.randint(0, 89),
        "split": "train",
        "answer": str(draw.randint(0, 10)),
        "question": text,
    }


def picture_name(number: int) -> str:
    return f"CLEVR_trainA_{number:06d}.png"


def write_list(path: Path, key: str, entries: Iterator[dict[str, object]]) -> None:
    info = {"split": "trainA", "license": "Creative Commons Attribution (CC-BY 4.0)", "version": "1.0"}
    with path.open("w") as file:
        file.write(f'{{"info": {json.dumps(info)}, "{key}": [')
        for number, entry in enumerate(entries):
            file.write(", " * bool(number) + json.dumps(entry))
        file.write("]}")


def measured(*arguments: object) -> tuple[float, float, float]:
    """Seconds, peak MiB and processor seconds of `r1mm distill` with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    start = time.perf_counter()
    # The peak of one child: each is started by a process of its own, which says what it saw.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-m", "r1mm", "distill", *map(str, arguments)]
    found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(found.stderr)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return time.perf_counter() - start, float(found.stdout), spent


def questions(folder: Path, sizes: list[int], per_picture: int) -> None:
    for size in sizes:
        draw = random.Random(size)
        scenes, asked, out = (folder / name for name in ("scenes.json", "questions.json", "out.jsonl"))
        write_list(scenes, "scenes", (scene(number, draw) for number in range(size)))
        write_list(asked, "questions", (question(i, i // per_picture, draw) for i in range(size * per_picture)))
        seconds, peak, spent = measured("questions", "--scenes", scenes, "--questions", asked, "--out", out)
        read, written = (scenes.stat().st_size + asked.stat().st_size) / 1e6, out.stat().st_size / 1e6
        print(
            f"questions: {size:6d} scenes, {size * per_picture:7d} questions, {read:7.1f} MB read, {written:6.1f} MB "
            f"written: {seconds:6.1f} s ({spent:.1f} s of the processor), peak {peak:.0f} MiB",
            flush=True,
        )


def build(folder: Path, sizes: list[int], per_picture: int, side: int) -> None:
    import pyarrow.parquet as pq

    from r1mm.chain.pictures import look_at
    from r1mm.distill.build import write_split
    from r1mm.distill.rows import train_rows

    for size in sizes:
        images = folder / f"images-{size}"
        images.mkdir()
        noise = np.random.default_rng(size)
        for number in range(size):
            PIL.Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(
                images / picture_name(number), compress_level=0
            )
        valid = folder / f"valid-{size}.jsonl"
        thought = "<think>\n" + "I count the red cube at these coordinates. " * 80 + "\n</think>\n**The answer is: ** 3"
        with valid.open("w") as file:
            for row in range(size * per_picture):
                pair = {"img_filename": picture_name(row // per_picture), "q": f"How many, {row}?", "a": "3"}
                file.write(json.dumps({**pair, "r1_response": thought}) + "\n")
        out = folder / f"dataset-{size}"
        seconds, peak, spent = measured("build", valid, "--images", images, "--out", out)
        written = sum(path.stat().st_size for path in out.rglob("*.parquet")) / 1e6
        rows = train_rows(valid, 1234)
        plain = folder / "plain"
        plain.mkdir(exist_ok=True)
        pictures = look_at(list(dict.fromkeys(row.picture for row in rows.rows)), images, "valid")
        files = write_split("train", rows, pictures, plain, 1234, "upstream", dictionary=False).files
        without = sum((plain / name).stat().st_size for name in files) / 1e6
        groups = sum(pq.ParquetFile(path).num_row_groups for path in out.rglob("*.parquet"))
        print(
            f"build: {size:6d} pictures, {size * per_picture:6d} rows: {seconds:6.1f} s ({spent:.1f} s of the "
            f"processor), peak {peak:.0f} MiB; {written:.1f} MB in {groups} groups, {without:.1f} MB with a picture "
            "for every row",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="*", default=[700, 7000, 70000], help="default: %(default)s")
    parser.add_argument("--questions", type=int, default=10, help="for a scene (default: %(default)s)")
    parser.add_argument("--pictures", type=int, nargs="*", default=[500, 2000], help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=3, help="for a picture (default: %(default)s)")
    parser.add_argument("--side", type=int, default=258, help="of a picture; 258 are 200 kB (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are made for the time (default: here)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path(), prefix=".distill-") as scratch:
        questions(Path(scratch), options.scenes, options.questions)
        build(Path(scratch), options.pictures, options.rows, options.side)


if __name__ == "__main__":
    main()
