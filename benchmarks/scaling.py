"""What the harness costs over the number of things: CPU times, their slope, and whether any is worse than n log n.

    python -m benchmarks.scaling                               # all parts: a table of each
    python -m benchmarks.scaling --only cache --plot cache.png

A part is a function that takes a number and returns seconds of CPU time by name, of this process and its children;
``PARTS`` lists them. The slope is that of the logarithms, by least squares: 1 is linear, 2 quadratic; ``last`` is
that of the last two sizes. Runs anywhere; nothing here is a figure of TensorRT.

Exit status: 0, or 1 where a slope is over that of n log n by more than ``SLACK``, or the last by twice that.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from harness import Settings, Subject

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # records that are made up are there
SLACK = 0.2
"""Two runs of one figure on a busy machine differ by as much; the slope of the last two sizes alone by twice that."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing whose number grows."""

    of: str
    """What is counted."""
    sizes: tuple[int, ...]
    measure: Callable[[int], dict[str, float]]
    """Takes the number; returns seconds by name."""


def cache(count: int) -> dict[str, float]:
    """Fill an engine cache with engines of ten bytes, find each again, list, count against the limit, and empty it."""
    from harness.backends import BuildReport, EngineCache

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"an engine!")
        return BuildReport()

    def get_all() -> None:
        for number in range(count):
            engines.get({"engine": number}, build, progress=lambda line: None, name="clip")

    with tempfile.TemporaryDirectory() as folder:
        engines = EngineCache(Path(folder) / "engines", limit_bytes=2**30)
        taken = {
            "fill": seconds(get_all),
            "find each": seconds(get_all),
            "list": seconds(engines.entries),
            "find by content": seconds(lambda: engines.with_sha256("0" * 64)),
        }
        for number, entry in enumerate(engines.entries()):
            os.utime(entry.path, (number, number))  # none was used a moment ago
        engines.limit_bytes = 5 * count
        taken["evict half"] = seconds(lambda: engines._clean(keep=Path()))
        taken["empty"] = seconds(engines.clear)
    return taken


def history(count: int) -> dict[str, float]:
    """Open a history of one series with a step every 500 sessions, read it, search it for changes, and show it."""
    import random
    from datetime import datetime, timedelta

    from history_records import BENCHMARK, KEY, session

    from harness.history import open_history
    from harness.report.text import history_text, series_of

    dice, start = random.Random(0), datetime(2026, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "history.sqlite")
        with open_history(path) as store:
            store.add_all(
                session(
                    0, id=f"s{i}", recorded_at=(start + timedelta(hours=i)).isoformat(),
                    median=dice.gauss(2.0, 0.02) + 0.1 * (i // 500 % 2),
                )
                for i in range(count)
            )  # fmt: skip
        taken = {"open": seconds(lambda: open_history(path).close())}
        with open_history(path) as store:
            taken["read"] = seconds(lambda: store.sessions(BENCHMARK, KEY))
            sessions = store.sessions(BENCHMARK, KEY)
            taken["changes and text"] = seconds(lambda: history_text([series_of(sessions)]))
    return taken


def page(count: int) -> dict[str, float]:
    """Read results of one subject, of which a tenth failed and was bisected, and write the page and the summary."""
    from dataclasses import replace

    from recorded import bisection, result

    from harness.records import document, load, save_json
    from harness.report import summary
    from harness.report.html import save_page

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [result("pass" if i % 10 else "fail", case=f"c{i}").to_json() for i in range(count)]
        save_json(document(rows, environment={}, command="parity verify"), folder / "results.json")
        for i in range(0, count, 10):
            found = replace(bisection(), subject="net", case=f"c{i}", backend="rtx", precision="fp16").to_json()
            data = document([], environment={}, command="parity bisect") | {"bisect": found}
            save_json(data, folder / f"bisect-{i}.json")
        taken = {"read": seconds(lambda: load([folder]))}
        records = load([folder])
        taken["page"] = seconds(lambda: save_page(records, folder / "page.html"))
        return {**taken, "summary": seconds(lambda: summary(records))}


def outputs(count: int) -> dict[str, float]:
    """Keep outputs of PyTorch of one number each, find each again, and empty the cache."""
    import torch

    from harness.reference import OutputCache

    def get_all() -> None:
        for number in range(count):
            kept.get({"run": number}, lambda: ({"y": torch.zeros(1)}, ()), torch.device("cpu"))

    with tempfile.TemporaryDirectory() as folder:
        kept = OutputCache(Path(folder) / "outputs", enabled=True)
        return {"keep": seconds(get_all), "find each": seconds(get_all), "empty": seconds(kept.clear)}


def values(count: int) -> dict[str, float]:
    """Judge every value of a chain of operations on ONNX Runtime, of a module and of a file: cold, then cached."""
    with tempfile.TemporaryDirectory() as name:
        folder, taken = Path(name), {}
        for kind, subject in (("module", chain_module(count)), ("file", chain_file(count, folder / "chain.onnx"))):
            for times in ("cold", "cached"):
                taken[f"{kind}, {times}"] = seconds(lambda subject=subject: judge_layers(subject, folder))
    return taken


def judge_layers(subject: Subject, folder: Path) -> None:
    """Judge the one case of a subject with its values."""
    from harness import Target
    from harness.layers import judge_with_layers
    from harness.verify import Run

    with Run(subject, quiet_settings(folder)).target(Target("ort-cpu", "fp16")) as opened:
        result = judge_with_layers(opened, "one")
    assert result.layers is not None, result.notes


def bisect(count: int) -> dict[str, float]:
    """Bisect a chain of which FP16 cannot hold the squares at its end, with an empty engine cache."""
    from harness import Target
    from harness.bisect import bisect

    with tempfile.TemporaryDirectory() as name:
        subject, found = chain_file(count, Path(name) / "chain.onnx", overflows=True), []
        settings = quiet_settings(Path(name))
        taken = seconds(lambda: found.append(bisect(subject, Target("torch", "fp16"), "one", settings)))
    assert found[0].plan, found[0].finding
    return {"bisect": taken}


def chain_module(count: int) -> Subject:
    """Return a module of so many operations, one after the other."""
    import torch

    from harness import Subject, targets

    class Chain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            for number in range(count):
                x = x.sigmoid() if number % 2 else x.exp()
            return {"y": x}

    return Subject(
        name="chain",
        build=lambda: Chain().eval(),
        cases={"one": numbers},
        targets=targets("ort-cpu", precisions=("fp16",)),
        weights="random",
    )


def chain_file(count: int, path: Path, *, overflows: bool = False) -> Subject:
    """Return the same as an ONNX file; where it ``overflows``, squares at its end are beyond FP16."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    from harness import Subject, targets

    end: dict[int, tuple[str, list[str]]] = {}
    if overflows:
        first = count - 4  # a chain forgets what lies far before its end
        end = {
            first: ("Mul", ["large"]), first + 1: ("Mul", [f"v{first + 1}"]), first + 2: ("Sqrt", []),
            first + 3: ("Div", ["large"]),
        }  # fmt: skip

    nodes = [
        helper.make_node(op, [f"v{number}", *others], [f"v{number + 1}"])
        for number in range(count) for op, others in [end.get(number, ("Sigmoid" if number % 2 else "Exp", []))]
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in ("v0", f"v{count}")]
    large = numpy_helper.from_array(numbers()["x"].numpy()[:1, :1] * 0 + 300, "large")
    model = helper.make_model(
        helper.make_graph(nodes, "chain", ends[:1], ends[1:], initializer=[large] if overflows else []),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    checker.check_model(model)
    save(model, path)
    return Subject(
        name="chain-file", onnx=path, cases={"one": lambda: {"v0": numbers()["x"]}}, weights="random",
        targets=targets("ort-cpu", precisions=("fp16",)),
    )  # fmt: skip


def numbers() -> dict[str, torch.Tensor]:
    """Return the input of a chain."""
    import torch

    return {"x": torch.randn(4, 16, generator=torch.Generator().manual_seed(0))}


def quiet_settings(folder: Path) -> Settings:
    """Return settings that keep everything in a folder and say nothing."""
    from harness import Settings

    return Settings(root=folder, engines=folder / "engines", progress=lambda line: None)


def collection(count: int) -> dict[str, float]:
    """Collect so many suites with pytest, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n')
        for number in range(count):
            (folder / f"test_net{number}.py").write_text(SUITE.replace("NAME", f"net{number}"))
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return {"collect": seconds(lambda: subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
        ))}  # fmt: skip


SUITE = """
from harness import Subject, targets
from harness.checks import test_layers, test_outputs


def build():
    raise NotImplementedError


SUBJECT = Subject(
    name="NAME", build=build, cases={"one": dict}, targets=targets("ort-cpu", precisions=("fp32", "fp16")),
    weights="random",
)
"""

PARTS = {
    "values": Part(of="values of a graph", sizes=(20, 63, 200, 632, 2000), measure=values),
    "bisect": Part(of="values of a wrong graph", sizes=(20, 63, 200, 632, 2000), measure=bisect),
    "collection": Part(of="suites collected", sizes=(30, 100, 300, 1000), measure=collection),
    "cache": Part(of="engines in the cache", sizes=(100, 300, 1000, 3000, 10000), measure=cache),
    "history": Part(of="sessions of a series", sizes=(1250, 2500, 5000, 10000, 20000), measure=history),
    "page": Part(of="results on a page", sizes=(312, 625, 1250, 2500, 5000), measure=page),
    "outputs": Part(of="kept outputs of PyTorch", sizes=(100, 300, 1000, 3000), measure=outputs),
}


def main() -> int:
    """Print a table per part; return the exit status."""
    options = parse()
    measured = {name: run(PARTS[name]) for name in options.only or PARTS}
    too_steep = [f"{name}: {what}" for name, times in measured.items() for what in report(PARTS[name], times)]
    if options.plot:
        plot(measured, options.plot)
    print(f"worse than n log n: {', '.join(too_steep) or 'nothing'}")
    return 1 if too_steep else 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture of all parts")
    return parser.parse_args()


def run(part: Part) -> dict[str, list[float]]:
    """Return the seconds of every figure, one per size; what is imported at first is not counted."""
    part.measure(part.sizes[0])
    rows = [part.measure(size) for size in part.sizes]
    return {name: [row[name] for row in rows] for name in rows[0]}


def report(part: Part, times: Mapping[str, Sequence[float]]) -> list[str]:
    """Print the table of one part; return the figures whose slope is too steep."""
    print(f"\n{part.of:<24}" + "".join(f"{size:>10}" for size in part.sizes) + f"{'slope':>8}{'last':>8}")
    for name, figures in times.items():
        row = "".join(f"{figure:>10.3g}" for figure in figures)
        steepness = "".join(f"{it:>8.2f}" for it in steep(part.sizes, figures))
        print(f"{name + ', s':<24}{row}{steepness}")
    whole, last = steep(part.sizes, [size * math.log(size) for size in part.sizes])
    return [
        name
        for name, figures in times.items()
        if (found := steep(part.sizes, figures))[0] > whole + SLACK or found[1] > last + 2 * SLACK
    ]


def steep(sizes: Sequence[float], figures: Sequence[float]) -> tuple[float, float]:
    """Return the slope over all sizes, and of the last two: a fixed cost flattens the first ones."""
    return slope(sizes, figures), slope(sizes[-2:], figures[-2:])


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Return the slope of the logarithms by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(figure) for figure in figures]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def plot(measured: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw every part: seconds over its number, both as logarithms."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(measured), figsize=(5 * len(measured), 4), squeeze=False)
    for (name, times), ax in zip(measured.items(), axes[0], strict=True):
        for what, figures in times.items():
            label = f"{what}: {slope(PARTS[name].sizes, figures):.2f}"
            ax.loglog(PARTS[name].sizes, figures, marker="o", label=label)
        ax.set(xlabel=PARTS[name].of, ylabel="seconds of CPU", title=name)
        ax.legend(title="slope", fontsize="small", framealpha=0.5)
    figure.tight_layout()
    figure.savefig(path)


def seconds(call: Callable[[], object]) -> float:
    """Return the CPU time that a call takes, that of the processes it starts and waits for included."""
    before = cpu_time()
    call()
    return cpu_time() - before


def cpu_time() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    sys.exit(main())
