"""Contestants take turns, A B B A, each in a fresh process: a drift affects them all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from harness.errors import ParityError
from harness.files import write_bytes
from harness.latency.contestants import Contestant, Workload
from harness.latency.options import Options
from harness.latency.processes import Worker
from harness.locks import Held, locked
from harness.machine import open_gpu
from harness.records import ProcessRun
from harness.settings import print_progress
from harness.temporary import temporary_folder
from harness.tensors import Tensors

AT_ONCE = 16
"""Processes that wait for their turn at a time, with their imports done: each holds some hundred MB."""
Requests = Sequence[tuple[Contestant, dict[str, Any]]]


def take_turns(
    workload: Workload,
    contestants: Sequence[Contestant],
    options: Options,
    *,
    rounds: int,
    timed_before: Collection[Contestant] = (),
) -> Generator[tuple[Contestant, ProcessRun | ParityError], None, None]:
    """Yield the measurement of each fresh process as soon as it ends.

    The order of the contestants is reversed in every second round. One that fails yields its error and gets no further
    turn. The throughput is measured in the first process of a contestant; ``timed_before`` have had theirs. Another run
    that measures on the same GPU is waited for.
    """
    order = list(in_turns(contestants, rounds))
    failed: set[Contestant] = set()
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_gpu_of_its_own(contestants))
        except Held as error:
            yield from ((contestant, error) for contestant in dict.fromkeys(contestants))
            return
        saved: dict[bool, Path] = {}
        for start in range(0, len(order), AT_ONCE):
            requests = []
            for number, contestant in enumerate(order[start : start + AT_ONCE], start):
                if contestant not in failed:
                    throughput = contestant not in timed_before and contestant not in order[:number]
                    opened = contestant.opened
                    as_file = opened is not None and opened.plan.as_file
                    if as_file not in saved:
                        given = opened.as_taken(workload.inputs) if opened and as_file else workload.inputs
                        saved[as_file] = _save_inputs(given, folder / f"inputs-{len(saved)}.safetensors")
                    files = {"inputs": str(saved[as_file]), "result": str(folder / f"{number}.json")}
                    requests.append((contestant, _request(workload, contestant, options, throughput) | files))
            yield from _measure(requests, options, failed)


def _gpu_of_its_own(contestants: Sequence[Contestant]) -> contextlib.AbstractContextManager[None]:
    """Let no other process of this machine measure on the GPU meanwhile. Raises Held where one did for too long."""
    if all(contestant.device == "cpu" for contestant in contestants):
        return contextlib.nullcontext()
    return _alone(Path(tempfile.gettempdir()) / f"parity-gpu-{_gpu_uuid()}.lock")


def _gpu_uuid() -> str:
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another user's lock: their run is seen among the GPU's processes
            stack.enter_context(locked(path, "the GPU", waiting=print_progress))
        yield


def in_turns(contestants: Sequence[Contestant], rounds: int) -> Iterator[Contestant]:
    """Yield A B B A A B ...: every second round in reverse order."""
    for number in range(rounds):
        yield from contestants if number % 2 == 0 else reversed(contestants)


def replays_graph(contestant: Contestant, options: Options) -> bool:
    """Return whether a contestant is to replay a CUDA graph; only engines do."""
    return options.graph and contestant.device == "cuda" and contestant.runner == "engine"


def _measure(
    requests: Requests, options: Options, failed: set[Contestant]
) -> Iterator[tuple[Contestant, ProcessRun | ParityError]]:
    """Start all processes, wait until their imports are done, and let them measure one at a time.

    A contestant that fails is added to ``failed``, and its other processes do not measure.
    """
    with contextlib.ExitStack() as stack:
        if options.lock_clocks is not None and any(contestant.device == "cuda" for contestant, _ in requests):
            stack.callback(_free_clocks)  # a process that is killed leaves its GPU locked
        workers = []
        for contestant, request in requests:
            worker = Worker(request)
            stack.callback(worker.close)
            workers.append((contestant, worker))
        for contestant, worker in workers:
            try:
                worker.ready()
            except ParityError as error:
                if contestant not in failed:
                    failed.add(contestant)
                    yield contestant, error
        for contestant, worker in workers:
            if contestant not in failed:
                try:
                    worker.go()
                    yield contestant, worker.result()
                except ParityError as error:
                    failed.add(contestant)
                    yield contestant, error


def _save_inputs(inputs: Tensors, path: Path) -> Path:
    # safetensors refuses tensors that share memory, and one input may be given under two names.
    write_bytes(save({name: tensor.cpu().contiguous().clone() for name, tensor in inputs.items()}), path)
    return path


def _request(workload: Workload, contestant: Contestant, options: Options, throughput: bool) -> dict[str, Any]:
    """Return what ``harness.timing.worker`` reads, without the paths of inputs and result."""
    locator = options.locator or workload.subject.locator or workload.subject.name
    where: Mapping[str, str] = {"locator": locator, "suites": str(options.suites.resolve())}
    return {
        "runner": contestant.runner,
        "backend": contestant.backend,
        "precision": contestant.precision,
        "engine": str(contestant.engine.path.resolve()) if contestant.engine else "",
        "subject": where if contestant.runner != "engine" else None,
        "device": contestant.device,
        "graph": replays_graph(contestant, options),
        "l2": options.l2,
        "throughput": options.throughput and throughput,
        "lock_clocks": options.lock_clocks,
        "neighbours": options.neighbours,
        "sampling": dict(options.sampling) if options.sampling else None,
    }


def _free_clocks() -> None:
    with open_gpu(torch.device("cuda", torch.cuda.current_device())) as gpu:
        gpu.free_clocks()
