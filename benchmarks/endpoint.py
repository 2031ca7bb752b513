"""`r1mm distill query` against a server that fails, while it is killed; what its records cost.

    python benchmarks/endpoint.py faults       10,000 questions, 64 at a time, a fifth of all requests failing, 3 kills
    python benchmarks/endpoint.py records      lines a second by how they are brought to the disk; 700,000 known again

`faults` exits with 1 unless every question has exactly one record in the end.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from r1mm.endpoint.records import Records, content_key, dead_letters
from tests.asking import lines, scene_questions
from tests.chat_server import MODEL, chatting, completion, error
from tests.loopback import Answer

TIMEOUT = 5.0
STALL = 60.0  # seconds, well past the time-out


def serve(options: argparse.Namespace) -> None:
    """The server, in a process of its own: says where it is, serves until its input ends, says what it counted."""
    chance, kinds = random.Random(options.seed), Counter[str]()

    def fault(prompt: str, _: int) -> Answer | None:
        drawn, patience = chance.random(), chance.uniform(0.02, 0.1)
        whole = replace(completion(prompt), wait=patience)
        if drawn >= options.faults:
            kinds["answered"] += 1
            return whole
        kind = ("429", "500", "stall", "cut")[int(4 * drawn / options.faults)]
        kinds[kind] += 1
        if kind == "429":
            return error(429, "slow down", **({"Retry_After": "1"} if chance.random() < 0.1 else {}))
        return {"500": error(500, "oh"), "stall": replace(whole, wait=STALL), "cut": replace(whole, cut=60)}[kind]

    with chatting(fault) as chat:
        print(chat.address, flush=True)
        sys.stdin.read()
        print(json.dumps({"requests": len(chat.sent), "kinds": kinds, "asked": len(chat.asked)}), flush=True)


def faults(options: argparse.Namespace) -> None:
    """Kill the client at random moments, let it end, and count."""
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        asked = scene_questions(Path(place) / "questions.jsonl", options.questions)
        out = Path(place) / "traces.jsonl"
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", "--seed", str(options.seed), "--faults", str(options.faults)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin
        assert server.stdout
        address = server.stdout.readline().strip()
        command = [sys.executable, "-m", "r1mm", "distill", "query", str(asked), "--out", str(out)]
        command += ["--base-url", address, "--model", MODEL, "--concurrency", str(options.concurrency)]
        command += ["--timeout", str(TIMEOUT), "--json"]
        began, kills, memory, starts = time.monotonic(), 0, 0, []
        while True:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if kills < options.kills:
                moment = chance.uniform(4, options.longest)
                try:
                    process.wait(moment)
                    sys.exit(f"ended before kill {kills + 1}; take more --questions or a smaller --longest")
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                    print(f"kill {kills} after {moment:.1f} s, {len(lines(out)):,} records", flush=True)
                    continue
            said, peak = let_end(process)
            memory = max(memory, peak)
            starts.append(json.loads(said))
            if not starts[-1]["dead"] and not starts[-1]["dead_before"]:
                break
            command.append("--retry-dead")
        seconds = time.monotonic() - began
        server.stdin.close()
        counted = json.loads(server.stdout.read())
        rows = lines(out)
        found = Counter(row["img_filename"] for row in rows)
        wanted = {row["img_filename"] for row in lines(asked)}
        lost, doubled = len(wanted - set(found)), sum(count - 1 for count in found.values())
        report: dict[str, Any] = {
            "records": len(rows),
            "lost": lost,
            "doubled": doubled,
            "dead letters, answered later": len(lines(dead_letters(out))),
            "requests the server saw": counted["requests"],
            **{f"  {kind}": count for kind, count in sorted(counted["kinds"].items())},
            "answered again after a kill": counted["kinds"]["answered"] - len(rows),
            "retries of the last starts": sum(start["retries"] for start in starts),
            "starts that ended": len(starts),
            "seconds": round(seconds, 1),
            "requests/s": round(counted["requests"] / seconds, 1),
            "peak memory of a start that ended, MiB": round(memory / 2**20),
        }
        for name, value in report.items():
            print(f"{name:42} {value:,}")
    sys.exit(bool(lost or doubled or kills < options.kills))


def let_end(process: "subprocess.Popen[str]") -> tuple[str, int]:
    """The output of a process when it ends, and the most memory that it took, in bytes."""
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, watched.memory_info().rss)
        time.sleep(0.2)
    return process.communicate()[0], peak


def records(_: argparse.Namespace) -> None:
    """What lines cost, and what it costs to know them again."""
    text = "x" * 3000  # about what a trace of R1 has

    def add(path: Path, count: int, after: Callable[[Any], None]) -> float:
        began = time.monotonic()
        with Records(path) as kept:
            for number in range(count):
                key = content_key("m", number, {})
                kept.add_result(key, {"r1_response": text, "key": key, "usage": {"prompt_tokens": 400}})
                after(kept)
        return time.monotonic() - began

    last = [0.0]

    def each_second(kept: Any) -> None:
        if time.monotonic() - last[0] > 1:
            last[0] = time.monotonic()
            asyncio.run(asyncio.to_thread(kept._sync))

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        for name, count, after in (
            ("synced with every line", 1000, lambda kept: kept._sync()),
            ("synced once a second", 20_000, each_second),
            ("synced at the end", 20_000, lambda _: None),
        ):
            seconds = add(Path(place) / f"{count}-{len(name)}.jsonl", count, after)
            print(f"{name:28} {1e3 * seconds / count:.3f} ms a line, the last sync included")
        known = Path(place) / "known.jsonl"
        with known.open("w") as file:
            for number in range(700_000):
                file.write(json.dumps({"key": content_key("m", number, {}), "usage": {"prompt_tokens": 400}}) + "\n")
        process = psutil.Process(os.getpid())
        before, began = process.memory_info().rss, time.monotonic()
        with Records(known) as kept:
            more = process.memory_info().rss - before
            print(f"{kept.answered:,} records known again: {time.monotonic() - began:.1f} s, {more / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "records", "serve"))
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--faults", type=float, default=0.2, help="share of requests that fail, evenly in four ways")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--longest", type=float, default=25.0, help="a start is killed within so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    {"faults": faults, "records": records, "serve": serve}[options.what](options)


if __name__ == "__main__":
    main()
