"""The time of every kernel of an engine, with the ONNX nodes inside it and their PyTorch module."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from harness.backends import TapSession
from harness.errors import ParityError
from harness.graph import Program
from harness.latency.contestants import Contestant, Workload, free_engine
from harness.records import KernelTime
from harness.sentences import Sentence
from harness.timing import kernel_times


def time_kernels(contestant: Contestant, workload: Workload) -> tuple[KernelTime, ...]:
    """Return the time of every kernel of an engine; empty, with a line of progress, where it cannot be profiled."""
    if contestant.engine is None or contestant.opened is None:
        return ()
    opened = contestant.opened
    try:
        session = opened.load()
        workload.say(f"{contestant.name}: timing its kernels")
        times = opened.steps.run("profiling", lambda: kernel_times(session, opened.as_taken(workload.inputs)))
        known = session.kernels() if isinstance(session, TapSession) else []
        nodes = {kernel.name: kernel.nodes for kernel in known}
        return join_kernels(times, nodes, node_modules(workload.run.prepared.program))
    except ParityError as error:
        workload.say(Sentence("no_kernel_times", name=contestant.name, error=error))
        return ()
    finally:
        free_engine(opened)


def node_modules(program: Program) -> dict[str, str]:
    """Return the PyTorch module of every ONNX node, by the node's name."""
    return {
        str(node.name): program.values[str(output.name)].module
        for node in program.model.graph
        for output in node.outputs
        if str(output.name) in program.values
    }


def join_kernels(
    times: Sequence[tuple[str, float]], nodes: Mapping[str, Sequence[str]], modules: Mapping[str, str]
) -> tuple[KernelTime, ...]:
    """Return kernel times, slowest first, with the ONNX nodes inside each and their common module.

    A kernel that the inspector does not list has the node of its own name, as on ONNX Runtime.
    """
    total = sum(ms for _, ms in times)
    found = []
    for name, ms in times:
        inside = tuple(nodes.get(name) or ([name] if name in modules else []))
        share = ms / total if total else 0.0
        module = common_module([modules[node] for node in inside if modules.get(node)])
        found.append(KernelTime(name=name, ms=ms, share=share, module=module, nodes=inside))
    return tuple(sorted(found, key=lambda kernel: -kernel.ms))


def common_module(modules: Sequence[str]) -> str:
    """Return the innermost module that contains them all; empty for the whole network."""
    paths = [module.split(".") for module in modules]
    return ".".join(
        parts[0] for parts in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*paths, strict=False))
    )
