"""Where an engine's time goes: its kernels, the ONNX nodes inside them and the PyTorch modules these come from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from harness.backends import TapSession
from harness.errors import ParityError
from harness.graph import Program
from harness.latency.contestants import Contestant, free_engine
from harness.latency.workload import Workload
from harness.records import KernelTime
from harness.timing import kernel_times


def time_kernels(contestant: Contestant, workload: Workload) -> tuple[KernelTime, ...]:
    """Return the time of every kernel of an engine; nothing, said once, where the backend has no profiler."""
    if contestant.engine is None or contestant.opened is None:
        return ()
    opened = contestant.opened
    try:
        session = opened.load()
        workload.say(f"{contestant.name}: timing its kernels")
        times = opened.steps.run("profiling", lambda: kernel_times(session, workload.inputs))
        known = session.kernels() if isinstance(session, TapSession) else []
        nodes = {kernel.name: kernel.nodes for kernel in known}
        return join_kernels(times, nodes, node_modules(workload.run.prepared.program))
    except ParityError as error:
        workload.say(f"{contestant.name}: no times of kernels: {error}")
        return ()
    finally:
        free_engine(opened)


def node_modules(program: Program) -> dict[str, str]:
    """Return the module of every ONNX node of the graph, by the node's name."""
    return {
        str(node.name): program.values[str(output.name)].module
        for node in program.model.graph
        for output in node.outputs
        if str(output.name) in program.values
    }


def join_kernels(
    times: Sequence[tuple[str, float]], nodes: Mapping[str, Sequence[str]], modules: Mapping[str, str]
) -> tuple[KernelTime, ...]:
    """Return kernel times, slowest first, with the ONNX nodes inside each and the module that holds them all.

    A kernel that the inspector does not list goes by its own name, which on ONNX Runtime is a node's.
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
    """Return the innermost module that holds them all; empty where only the whole network does."""
    paths = [module.split(".") for module in modules]
    return ".".join(
        parts[0] for parts in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*paths, strict=False))
    )
