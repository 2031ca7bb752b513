"""Images per second of the miniature world: sample, render and encode, in one process and in two."""

from __future__ import annotations

import argparse
import statistics
import time
from multiprocessing.pool import Pool

import numpy as np

from r1mm.mini.render import encode_png, render
from r1mm.mini.scenes import CLEVR_LIKE, SUPERCLEVR_LIKE, World, sample_scene

WORLDS = {world.name: world for world in (CLEVR_LIKE, SUPERCLEVR_LIKE)}


def make_images(world: World, images: int, seed: int) -> float:
    """Make `images` pictures of 1 to 6 objects in turn; the seconds of processor time that took."""
    start = time.process_time()
    rng = np.random.default_rng(seed)
    for index in range(images):
        encode_png(render(sample_scene(world, index % 6 + 1, rng, f"{index}.png")))
    return time.process_time() - start


def measure(pool: Pool, world: World, images: int, processes: int, repeats: int) -> tuple[float, float]:
    """Images per second and processor milliseconds per image, medians over `repeats`.

    Each repeat is split evenly among the pool's processes. Processor time says more where others use the machine too.
    """
    rates, costs = [], []
    for repeat in range(repeats):
        share = images // processes
        work = [(world, share, repeat * processes + worker) for worker in range(processes)]
        start = time.perf_counter()
        spent = sum(pool.starmap(make_images, work, chunksize=1))
        rates.append(share * processes / (time.perf_counter() - start))
        costs.append(1000 * spent / (share * processes))
    return statistics.median(rates), statistics.median(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600, help="images per repeat (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the median of these is printed (default: %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="process counts (default: 1 2)")
    parser.add_argument("--world", choices=sorted(WORLDS), nargs="+", default=sorted(WORLDS), help="default: all")
    arguments = parser.parse_args()
    if min(arguments.processes) < 1 or arguments.images < max(arguments.processes) or arguments.repeats < 1:
        parser.error("--processes and --repeats must be at least 1, and --images at least the number of processes")
    for name in arguments.world:
        for processes in arguments.processes:
            with Pool(processes) as pool:
                pool.starmap(make_images, [(WORLDS[name], 6, 0)] * processes, chunksize=1)
                rate, cost = measure(pool, WORLDS[name], arguments.images, processes, arguments.repeats)
            print(f"{name:16s} processes: {processes}  {rate:6.0f} images/s  {cost:5.1f} ms processor time per image")


if __name__ == "__main__":
    main()
