"""Where the seconds of a GRPO step go: a clock with exclusive phases, and a trainer that takes one step when told.

Nothing here knows how a trainer shares its images.  The edges of phases are put around the methods that TRL's trainer
calls on itself and as hooks on modules and gradients, so that stock TRL and r1mm are measured by the same means.
`step.py` is the benchmark.
"""

import functools
import gc
import queue
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import PrinterCallback, set_seed

PREPARE, REWARDS, OPTIMIZER, OTHER = "pre-processing", "rewards", "optimizer", "other and idle"
GENERATION, REFERENCE, POLICY = "generation", "reference", "policy"
PASSES = (GENERATION, REFERENCE, POLICY)
PREFILL, DECODING = "generation: prefill", "generation: decoding"
REFERENCE_REST, FORWARD = "reference: rest", "policy: forward"
TOWER_BACKWARD, BACKWARD = "policy: tower backward", "policy: backward"
# In the order of a step; exclusive: a second belongs to the innermost phase alone.
PHASES = (
    *(PREPARE, "generation: tower", PREFILL, DECODING, REWARDS, "reference: tower", REFERENCE_REST),
    *("policy: tower", FORWARD, BACKWARD, TOWER_BACKWARD, OPTIMIZER, OTHER),
)
_PASS_OF = {DECODING: GENERATION, PREFILL: GENERATION, REFERENCE_REST: REFERENCE, FORWARD: POLICY}
# Functions that TRL's trainer, or a part of it elsewhere, finds in its own module.
_PREPARING = ("apply_chat_template", "prepare_multimodal_messages")

# torch counts the attention kernels of GPUs; the CPU's does the same products.  The counter passes shapes for tensors.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *_, **__: (
        sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


@dataclass
class Step:
    """One measured step: seconds and operations by phase, images counted, what was sampled, peak memory."""

    total: float
    seconds: dict[str, float]
    operations: dict[str, float]
    images: dict[str, int]
    completions: list[list[int]]
    prompt_tokens: int
    peak: int


@dataclass
class Clock:
    """A stack of phases; time, and operations while they are counted, go to the innermost one."""

    cuda: bool
    running: bool = False
    stack: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operations: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    images: Counter[str] = field(default_factory=Counter)
    counter: FlopCounterMode | None = None
    _edge: float = 0.0
    _counted: float = 0.0

    def start(self, counter: FlopCounterMode | None) -> None:
        """Begin a step, outside of every phase."""
        self.stack, self.counter, self.running = [OTHER], counter, True
        self.seconds.clear()
        self.operations.clear()
        self.images.clear()
        self._counted = 0.0
        self._now()

    def stop(self) -> None:
        """End the step.  RuntimeError when a phase was left open: then its seconds are not what they are called."""
        self._settle()
        self.running = False
        if self.stack != [OTHER]:
            raise RuntimeError(f"a step ended inside {' > '.join(self.stack)}; the hooks do not fit this trainer")

    def enter(self, phase: str) -> None:
        """From here on time belongs to `phase`."""
        if self.running:
            self._settle()
            self.stack.append(phase)

    def leave(self, phase: str) -> None:
        """Back to the phase around `phase`, which must be the innermost."""
        if self.running:
            self._settle()
            if self.stack[-1] != phase:
                raise RuntimeError(f"phase {phase} ends inside {' > '.join(self.stack)}")
            self.stack.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """`enter` and `leave`.  After an error the step is void, and its phases stay as they are."""
        self.enter(name)
        yield
        self.leave(name)

    def current_pass(self) -> str | None:
        """generation, reference or policy, whichever the innermost such phase belongs to."""
        return next((_PASS_OF[phase] for phase in reversed(self.stack) if phase in _PASS_OF), None)

    def _settle(self) -> None:
        before, counted = self._edge, self._counted
        self._now()
        self.seconds[self.stack[-1]] += self._edge - before
        self.operations[self.stack[-1]] += self._counted - counted

    def _now(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        if self.counter is not None:
            self._counted = float(self.counter.get_total_flops())
        self._edge = time.perf_counter()


class Ended(Exception):
    """No error: how the loop of a trainer that has taken all its steps is left."""


class Side:
    """A trainer whose own training loop runs in a thread and takes one step each time `step` is called.

    The loop is the trainer's, not a copy of it; whoever has the turn is the only one that runs.
    """

    def __init__(self, trainer: Any, threads: int, cuda: bool) -> None:
        self.trainer, self.threads = trainer, threads
        self.clock = Clock(cuda)
        self.completions: list[list[int]] = []
        self.prompt_tokens = 0
        self.taken: Step | None = None
        self._seed = 0
        self._count = False
        self._ended = False
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        # What the main thread waits for: None when the turn is over, or work that only it can do.
        self._to_main: queue.Queue[Callable[[], None] | None] = queue.Queue()
        trainer.remove_callback(PrinterCallback)
        self._measure_methods()
        self._measure_models()
        self._take_turns()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def step(self, seed: int, *, count: bool = False) -> Step:
        """Take one step from this state of all random generators; `count` its operations, which slows it."""
        self._seed, self._count = seed, count
        self._go.release()
        self._wait()
        if self.taken is None:
            raise RuntimeError("the trainer ended before its step; give it more max_steps")
        return self.taken

    def end(self) -> None:
        """Leave the trainer's loop."""
        self._ended = True
        self._go.release()
        self._thread.join()

    def _wait(self) -> None:
        while (job := self._to_main.get()) is not None:
            job()
        if self._error is not None:
            raise self._error

    def _in_main_thread(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, run by the thread that waits for this one."""

        @functools.wraps(method)
        def passed_on(*args: Any, **kwargs: Any) -> Any:
            answer: Future[Any] = Future()

            def job() -> None:
                try:
                    answer.set_result(method(*args, **kwargs))
                except BaseException as error:  # raised again where the method was called
                    answer.set_exception(error)

            self._to_main.put(job)
            return answer.result()

        return passed_on

    def _run(self) -> None:
        try:
            torch.set_num_threads(self.threads)  # of this thread
            self.trainer.train()
        except Ended:
            return
        except BaseException as error:  # handed to the thread that waits, whatever it is
            self._error = error
        self.taken = None
        self._to_main.put(None)

    def _take_turns(self) -> None:
        """A step lasts from the request for its batch to the request for the next."""
        fetch = self.trainer.get_batch_samples
        counter: FlopCounterMode | None = None
        free = 0

        def next_batch(*args: Any, **kwargs: Any) -> Any:
            nonlocal counter, free
            if self.clock.running:
                self.clock.stop()
                if counter is not None:
                    counter.__exit__(None, None, None)
                self.taken = self._record(free)
            elif not hasattr(self.trainer.optimizer, "measured"):
                self._measure_optimizer()
            self._to_main.put(None)
            self._go.acquire()
            if self._ended:
                raise Ended
            gc.collect()
            if self.clock.cuda:
                torch.cuda.reset_peak_memory_stats()
                free = torch.cuda.memory_allocated()
            set_seed(self._seed)
            counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) if self._count else None
            if counter is not None:
                counter.__enter__()
            self.clock.start(counter)
            with self.clock.phase(PREPARE):
                return fetch(*args, **kwargs)

        self.trainer.get_batch_samples = next_batch

    def _record(self, before: int) -> Step:
        return Step(
            total=sum(self.clock.seconds.values()),
            seconds={phase: self.clock.seconds.get(phase, 0.0) for phase in PHASES},
            operations={phase: self.clock.operations.get(phase, 0.0) for phase in PHASES},
            images=dict(self.clock.images),
            completions=self.completions,
            prompt_tokens=self.prompt_tokens,
            peak=torch.cuda.max_memory_allocated() - before if self.clock.cuda else 0,
        )

    def _around(self, owner: Any, name: str, phase: Callable[[], str], look: Callable[..., None] | None = None) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def measured(*args: Any, **kwargs: Any) -> Any:
            if look is not None:
                look(*args, **kwargs)
            with self.clock.phase(phase()):
                return method(*args, **kwargs)

        setattr(owner, name, measured)

    def _measure_methods(self) -> None:
        trainer = self.trainer

        def keep_prompts(prompt_ids: Any, *_: Any, **__: Any) -> None:
            self.prompt_tokens = max(map(len, prompt_ids))

        def keep_completions(_: Any, __: Any, ___: Any, ids: list[list[int]]) -> None:
            self.completions = [list(row) for row in ids]

        self._around(trainer, "_tokenize_prompts", lambda: PREPARE)
        self._around(trainer, "_generate_single_turn", lambda: DECODING, keep_prompts)
        # math-verify limits its time by a signal, which only the main thread gets.
        trainer._calculate_rewards = self._in_main_thread(trainer._calculate_rewards)
        self._around(trainer, "_calculate_rewards", lambda: REWARDS, keep_completions)
        scoring = "_get_per_token_logps_and_entropies"
        self._around(trainer, scoring, lambda: FORWARD if torch.is_grad_enabled() else REFERENCE_REST)
        self._around(trainer, "compute_loss", lambda: FORWARD)
        self._around(trainer.accelerator, "backward", lambda: BACKWARD)
        self._around(trainer, "_clip_grad_norm", lambda: OPTIMIZER)
        self._measure_processor(trainer.processing_class)

    def _measure_optimizer(self) -> None:
        self._around(self.trainer.optimizer, "step", lambda: OPTIMIZER)
        self.trainer.optimizer.measured = True

    def _measure_processor(self, processor: Any) -> None:
        clock, kind, image_kind = self.clock, type(processor), type(processor.image_processor)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            with clock.phase(PREPARE):
                return kind.__call__(self, *args, **kwargs)

        def preprocess(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
            clock.images["pixels"] += len(images)
            with clock.phase(PREPARE):
                return image_kind._preprocess(self, images, *args, **kwargs)

        # Python looks `__call__` up on the class, so these two objects get a class of their own.
        processor.image_processor.__class__ = type(image_kind.__name__, (image_kind,), {"_preprocess": preprocess})
        processor.__class__ = type(kind.__name__, (kind,), {"__call__": call})

    def _measure_models(self) -> None:
        policy = self.trainer.model
        for network in (policy, self.trainer.ref_model):
            if network is None:
                continue
            base = network.model
            base.register_forward_pre_hook(self._model_begins, with_kwargs=True)
            base.register_forward_hook(self._model_ends, with_kwargs=True)
            base.visual.register_forward_pre_hook(self._tower_begins)
            base.visual.register_forward_hook(self._tower_ends)
            base.visual.blocks[0].register_forward_pre_hook(self._tower_sees, with_kwargs=True)
        patches = policy.model.visual.patch_embed.proj.weight
        if patches.requires_grad:
            patches.register_post_accumulate_grad_hook(self._tower_backward_ends)

    @staticmethod
    def _is_prefill(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        ids = kwargs.get("input_ids", args[0] if args else None)
        given = ids if ids is not None else kwargs.get("inputs_embeds")
        return given is not None and given.shape[1] > 1

    def _model_begins(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.clock.current_pass() == GENERATION and self._is_prefill(args, kwargs):
            self.clock.enter(PREFILL)

    def _model_ends(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
        if self.clock.stack[-1:] == [PREFILL]:
            self.clock.leave(PREFILL)

    def _tower_begins(self, *_: Any) -> None:
        current = self.clock.current_pass()
        self.clock.enter(f"{current}: tower" if current else OTHER)

    def _tower_ends(self, _: Any, __: Any, outputs: Any) -> None:
        if self.clock.running:
            self.clock.leave(self.clock.stack[-1])
        features = outputs.pooler_output
        if isinstance(features, torch.Tensor) and features.requires_grad:
            features.register_hook(self._tower_backward_begins)

    def _tower_sees(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Inside the tower, past whatever it leaves out itself.  Under checkpointing it comes again in backward.
        if self.clock.running and self.clock.stack[-1].endswith(": tower"):
            self.clock.images[self.clock.current_pass() or OTHER] += int(kwargs["cu_seqlens"].numel()) - 1

    def _tower_backward_begins(self, _: torch.Tensor) -> None:
        self.clock.enter(TOWER_BACKWARD)

    def _tower_backward_ends(self, _: torch.Tensor) -> None:
        if self.clock.running and self.clock.stack[-1] == TOWER_BACKWARD:
            self.clock.leave(TOWER_BACKWARD)


@contextmanager
def measured_functions(current: Callable[[], Clock]) -> Iterator[None]:
    """While this lasts, the functions by which trainers make texts of prompts are timed, wherever they are imported.

    `current` gives the clock of the side that has the turn.
    """
    found = [
        (module, function, getattr(module, function))
        for name, module in list(sys.modules.items())
        if name == "trl.trainer.grpo_trainer" or name.startswith("r1mm.train.")
        for function in _PREPARING
        if hasattr(module, function)
    ]
    for module, name, function in found:
        setattr(module, name, _prepared(function, current))
    try:
        yield
    finally:
        for module, name, function in found:
            setattr(module, name, function)


def _prepared(function: Callable[..., Any], current: Callable[[], Clock]) -> Callable[..., Any]:
    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with current().phase(PREPARE):
            return function(*args, **kwargs)

    return measured
