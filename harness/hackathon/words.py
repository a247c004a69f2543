"""The wording of the hackathon report, as data: the contest's sections of 2022 and 2023, and every sentence, in Chinese
and English.

The sections are those of the templates at the end of the contest's HackathonGuide.md (2022) and final_round.md (2023).
"""

# ruff: noqa: RUF001 - Chinese punctuation is full-width

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.report.html import WORDS

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
CONTEST = "https://github.com/NVIDIA/trt-samples-for-hackathon-cn/tree/master/Hackathon{year}"


@dataclass(frozen=True, kw_only=True)
class Text:
    """One sentence or heading in both languages."""

    zh: str
    en: str

    def get(self, lang: Language) -> str:
        """Return the text of one language."""
        return self.zh if lang == "zh" else self.en


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a template."""

    name: str
    level: int
    """Number of ``#``."""
    title: Text
    parts: tuple[str, ...]
    """``human:NAME`` for a block of HINTS, else the name of a generated part, in their order."""
    required: bool = True
    """Whether the contest demands it; an optional section may be left with an empty block."""


def _section(name: str, level: int, zh: str, en: str, *parts: str, required: bool = True) -> Section:
    return Section(name=name, level=level, title=Text(zh=zh, en=en), parts=parts, required=required)


_ACCURACY = _section(
    "accuracy", 3, "精度", "Accuracy", "labels", "accuracy", "metrics", "scores", "wenet", "human:accuracy-notes"
)
_PERFORMANCE = _section("performance", 3, "性能", "Performance", "performance", "human:performance-notes")
_ENVIRONMENT = _section(
    "environment", 3, "软件硬件环境与复现", "Environment and reproduction", "environment", "human:container", "commands"
)
_BUGS = _section("bugs", 2, "Bug报告（可选）", "Bug reports (optional)", "bugs", "human:bugs", required=False)
_EXPERIENCE = _section(
    "experience", 2, "经验与体会（可选）", "Experience (optional)", "human:experience", required=False
)
TEMPLATES: dict[str, tuple[Section, ...]] = {
    "2022": (
        _section("overview", 2, "总述", "Overview", "entry", "human:model", "numbers", "human:docker"),
        _section("model", 2, "原始模型", "The original model"),
        _section("introduction", 3, "模型简介", "Introduction", "human:introduction"),
        _section("difficulties", 3, "模型优化的难点", "Difficulties", "human:difficulties", "findings"),
        _section("process", 2, "优化过程", "Optimisation step by step", "human:process", "variants", "layers"),
        _section("results", 2, "精度与加速效果", "Accuracy and speed-up"),
        _ACCURACY,
        _PERFORMANCE,
        _ENVIRONMENT,
        _BUGS,
        _EXPERIENCE,
    ),
    "2023": (
        _section("overview", 2, "总述", "Overview", "entry", "human:topic", "human:model", "numbers", "human:docker"),
        _section("introduction", 3, "原始模型（可选）", "The original model (optional)", "human:introduction",
                 required=False),
        _section("work", 2, "主要开发工作", "Main work"),
        _section("difficulties", 3, "开发工作的难点", "Difficulties", "human:difficulties", "findings"),
        _section("process", 2, "开发与优化过程", "Development and optimisation step by step", "human:process",
                 "variants", "layers"),
        _section("results", 2, "优化效果", "Results"),
        _ACCURACY,
        _PERFORMANCE,
        _ENVIRONMENT,
        _BUGS,
        _section("answers", 2, "送分题答案（可选）", "Answers to the bonus questions (optional)", "human:answers",
                 required=False),
        _EXPERIENCE,
    ),
}  # fmt: skip
OPTIONAL_HINTS = ("accuracy-notes", "performance-notes", "container", "introduction", "bugs", "answers", "experience")
"""Blocks that may be emptied: whoever has nothing to say there deletes the hint."""
HINTS: dict[str, Text] = {
    "title": Text(
        zh="*待填写：报告标题，一行，以 `# ` 开头，例如 `# 用 TensorRT 优化某模型`。*",
        en="*To fill in: the title of the report, one line that begins with `# `.*",
    ),
    "topic": Text(
        zh="*待填写：选题编号，1、2、3、4、2+4、3+4 之一。*",
        en="*To fill in: the number of the topic, one of 1, 2, 3, 4, 2+4, 3+4.*",
    ),
    "model": Text(
        zh="*待填写：原始模型的名称、链接与一两句介绍。*",
        en="*To fill in: name and link of the original model, and a sentence or two about it.*",
    ),
    "docker": Text(
        zh="*待填写：在 Docker 中编译与运行的完整命令，放在代码块里，从 `docker pull` 开始，逐行可执行。*",
        en="*To fill in: every command that builds and runs this in Docker, in a code block, from `docker pull` on.*",
    ),
    "introduction": Text(
        zh="*待填写：模型的用途与效果、业界使用情况、整体结构与特色。*",
        en="*To fill in: what the model is for and how good it is, who uses it, its structure.*",
    ),
    "difficulties": Text(
        zh="*待填写：导出、解析、运行时遇到的问题与解决办法，为什么需要额外的工程手段；新算子、新结构、plugin。*",
        en="*To fill in: problems at export, parsing and running, how they were solved, why extra engineering was "
        "needed; new operators, structures and plugins.*",
    ),
    "process": Text(
        zh="*待填写：分步骤讲清开发过程，每一步为什么需要、解决了什么；附 Nsight Systems 优化前后的截图。*",
        en="*To fill in: the steps, why each was needed, what it solved; Nsight Systems timelines before and after.*",
    ),
    "accuracy-notes": Text(
        zh="*可填写：精度损失较大时，测试数据集上优化前后的指标；不需要时删去本行。*",
        en="*Optional: metrics on a data set before and after, where the loss is large; delete this line otherwise.*",
    ),
    "performance-notes": Text(
        zh="*可填写：对性能图表的说明，压力测试的方法；不需要时删去本行。*",
        en="*Optional: remarks on the figures, how the load was made; delete this line otherwise.*",
    ),
    "container": Text(
        zh="*可填写：所用容器镜像、CUBLAS 与 cuDNN 版本；不需要时删去本行。*",
        en="*Optional: the container image, versions of cuBLAS and cuDNN; delete this line otherwise.*",
    ),
    "bugs": Text(
        zh="*可填写：issue 链接（标签 hackathon2022 或 hackathon2023），以及上面没有的 bug；没有时删去本行。*",
        en="*Optional: links to the issues (label hackathon2022 or hackathon2023), and bugs not listed above; delete "
        "this line otherwise.*",
    ),
    "answers": Text(
        zh="*可填写：两道送分题的输出；没有做时删去本行。*",
        en="*Optional: the two outputs; delete this line otherwise.*",
    ),
    "experience": Text(
        zh="*可填写：经验与体会；没有时删去本行。*",
        en="*Optional: what was learnt; delete this line otherwise.*",
    ),
}
_SENTENCES: dict[str, tuple[str, str]] = {
    "generated": (
        "本文件由 `parity report` 从记录生成：标记块（`parity:human`）里的文字由人撰写，"
        "重新生成时保留；其余部分会被重写。",
        "Generated by `parity report` from records: text in marked blocks (`parity:human`) is written by people and "
        "stays when the file is generated anew; everything else is rewritten.",
    ),
    "comma": ("，", ", "),
    "entry": (
        "本工作是 [NVIDIA TensorRT Hackathon {year}]({link}) 的参赛题目。",
        "This is an entry to the [NVIDIA TensorRT Hackathon {year}]({link}).",
    ),
    "missing": ("**缺少**：", "**Missing**: "),
    "missing_results": (
        "没有精度记录，请运行 `parity verify SUBJECT -b BACKEND -p PRECISION --json reports/verify.json`。",
        "no accuracy was recorded; run `parity verify SUBJECT -b BACKEND -p PRECISION --json reports/verify.json`.",
    ),
    "missing_bench": (
        "没有性能记录，请运行 `parity bench SUBJECT -b BACKEND -p PRECISION --json reports/bench.json`。",
        "no latency was recorded; run `parity bench SUBJECT -b BACKEND -p PRECISION --json reports/bench.json`.",
    ),
    "missing_valid_bench": (
        "记录中没有引擎的有效延迟，请在空闲的设备上重新运行 `parity bench SUBJECT -b BACKEND -p PRECISION`。",
        "no valid latency of an engine was recorded; run `parity bench SUBJECT -b BACKEND -p PRECISION` on an idle "
        "device.",
    ),
    "missing_figures": (
        "没有任何输出可以比较，因此没有误差数字，原因见表下各行。",
        "no output could be compared, so there are no errors; the lines below the tables say why.",
    ),
    "missing_baseline": (
        "没有与原始模型（PyTorch FP32）对比的加速比，请让 `parity bench` 同时测量 PyTorch。",
        "no speed-up against the original model (PyTorch FP32) was recorded; let `parity bench` time PyTorch too.",
    ),
    "missing_environment": (
        "没有软件硬件环境记录，请用 `--json` 重新记录。",
        "no environment was recorded; record again with `--json`.",
    ),
    "missing_commit": (
        "没有代码版本记录，请在 git 仓库里重新记录。",
        "no commit was recorded; record again inside the git repository.",
    ),
    "missing_commands": (
        "没有命令记录，请用 `--json` 重新记录。",
        "no command was recorded; record again with `--json`.",
    ),
    "missing_figure": (
        "缺少图 {name}（{why}）。",
        "the figure {name} is missing ({why}).",
    ),
    "missing_broken": ("记录文件不能使用：{why}。", "a recorded file cannot be used: {why}."),
    "numbers": ("关键数字：", "Key numbers:"),
    "findings": ("记录中的发现：", "What the records show:"),
    "no_findings": (
        "记录中没有导出、解析或精度方面的问题。",
        "The records show no problem of export, parsing or precision.",
    ),
    "nothing_judged": ("没有任何精度结论的记录。", "No verdict on accuracy was recorded."),
    "origin": ("权重：{weights}，输入：{inputs}", "weights: {weights}, inputs: {inputs}"),
    "origin_device": (
        "权重：{weights}，输入：{inputs}，设备：{device}",
        "weights: {weights}, inputs: {inputs}, device: {device}",
    ),
    "variants": (
        "尝试过的方案（研究 {name}，{device}，{origin}）：",
        "Variants that were tried (study {name}, {device}, {origin}):",
    ),
    "variants_note": (
        "收益：相对第一个方案的延迟比，大于 1 为更快；加速比：相对 PyTorch FP32 流水线。{rule}",
        "Gain: latency of the first variant over this one's, above 1 is faster; speed-up: against the pipeline in "
        "PyTorch FP32. {rule}",
    ),
    "no_help": ("没有帮助的尝试：", "What did not help:"),
    "no_help_slow": ("延迟没有降低 1 % 以上（{gain}）", "latency did not fall by more than 1 % ({gain})"),
    "no_help_fail": ("结果不合格：{reason}", "it fails: {reason}"),
    "no_help_unjudged": ("未判定：{reason}", "not judged: {reason}"),
    "all_helped": ("所有后续方案都有收益。", "Every later variant gained something."),
    "plans": ("尝试过的精度方案（{subject}，{target}）：", "Precision plans that were tried ({subject}, {target}):"),
    "price": (
        "一次运行的中位时间（{device}）：该方案 {plan} ms，全低精度 {low} ms，FP32 {fp32} ms。",
        "Median time of one run ({device}): this plan {plan} ms, all low precision {low} ms, FP32 {fp32} ms.",
    ),
    "layers": (
        "逐层误差（{subject}/{case}，{target}；{origin}）：按模块，最差的在前。",
        "Error by layer ({subject}/{case}, {target}; {origin}): by module, the worst first.",
    ),
    "not_trusted": (
        "注意：观察改变了输出，逐层数字不可信。",
        "Note: looking changed the outputs, so these figures cannot be trusted.",
    ),
    "kernels": (
        "最耗时的内核（{subject}/{case}，{target}，各自单独计时）：",
        "Slowest kernels ({subject}/{case}, {target}, each timed apart):",
    ),
    "random_weights": (
        "注意：{subjects} 使用随机权重，数字只说明数值行为，不说明任务精度。",
        "Note: {subjects} ran with random weights: the figures tell numerics, not the quality of a task.",
    ),
    "random_inputs": ("注意：{subjects} 使用随机输入数据。", "Note: {subjects} ran on random inputs."),
    "unknown_labels": (
        "注意：{subjects} 没有记录权重或输入的来源。",
        "Note: for {subjects} the records do not say where weights or inputs come from.",
    ),
    "real_labels": (
        "所有数字来自训练好的（或文件中的）权重与真实输入。",
        "All figures are from trained weights (or those of a given file) and real inputs.",
    ),
    "on_cpu": (
        "注意：{subjects} 在 CPU 上运行，不能说明 GPU 的情况。",
        "Note: {subjects} ran on the CPU, which says nothing of a GPU.",
    ),
    "incomplete": (
        "注意：以下记录没有运行到结束，内容不全：{names}。",
        "Note: these runs did not come to their end, so there is less than there should be: {names}.",
    ),
    "accuracy": (
        "{subject}，{target}，权重：{weights}，输入：{inputs}，设备：{device}，原始模型：{reference}",
        "{subject}, {target}; weights: {weights}; inputs: {inputs}; device: {device}; original model: {reference}",
    ),
    "accuracy_note": (
        "绝对误差 |a − e|，相对误差 |a − e| / |e|（e 为原始模型输出）；整体相对误差为二范数之比，"
        "本底为 PyTorch 在同一精度下的同一数字。"
        "NaN/Inf 一列为两边不一致的非有限元素个数；数字只统计两边都有限的元素。",
        "Absolute error |a − e|, relative error |a − e| / |e|, with e from the original model; overall: the ratio of "
        "2-norms, floor: the same figure for PyTorch in that precision. NaN/Inf counts elements that are not finite "
        "and not the same on both sides; all figures are over elements finite on both.",
    ),
    "undefined": (
        "{name}：{count} 个元素 e = 0 而 a 不为 0，没有相对误差，不在统计内。",
        "{name}: {count} elements have e = 0 and a not, so they have no relative error and are not counted.",
    ),
    "unjudged": ("未判定：", "Not judged:"),
    "metrics": ("任务指标：", "Task metrics:"),
    "scores": ("按 2023 初赛规则评判的参赛目录：", "Contest folders, judged by the rules of the 2023 preliminary:"),
    "performance": (
        "{subject}/{case}，{device}，{how}：",
        "{subject}/{case}, {device}, {how}:",
    ),
    "performance_note": (
        "延迟为各进程中位数的中位数；加速比在同一次测量中与 PyTorch 交替得到，大于 1 为更快，"
        "括号内为 95 % 区间，包含 1 的区间什么也不能证明。吞吐为满载时每秒运行次数。",
        "Latency is the median over the processes' medians; speed-ups were measured in turns with PyTorch, above 1 is "
        "faster, with the 95 % interval; one that includes 1 proves nothing. Throughput: runs per second under load.",
    ),
    "gpu_ms": ("GPU 时间", "GPU time"),
    "end_to_end_ms": ("单次运行的端到端时间", "end-to-end time of one run"),
    "invalid": ("无效：{why}", "invalid: {why}"),
    "times": (
        "同一测量有 {count} 次记录，这里是最新的一次。",
        "{benchmark} was recorded {count} times; the newest is shown.",
    ),
    "no_sizes": (
        "只记录了一种尺寸，因此没有随 batch size 或 sequence length 变化的图。",
        "Only one size was recorded, so there is no chart over batch size or sequence length.",
    ),
    "environment": ("记录于：{names}", "Recorded in: {names}"),
    "commit": ("代码版本：{commits}", "Commit: {commits}"),
    "dirty": (
        "注意：带 `+changes` 的记录产生时工作区有未提交的修改。",
        "Note: `+changes` means that the work tree had changes that are in no commit.",
    ),
    "commands": (
        "在代码仓库根目录下逐行运行以下命令，可以重新得到这些记录：",
        "These commands, run in the root of the repository, record it all again:",
    ),
    "bug": ("Bug {number}：{subject} [{target}]", "Bug {number}: {subject} [{target}]"),
    "no_bugs": ("`parity bisect` 没有发现引擎的 bug。", "`parity bisect` found no fault of an engine."),
    "bisections_not_judged": (
        "{all} 次 `parity bisect` 中有 {count} 次未能判定，因此不能说明引擎没有 bug。",
        "{count} of {all} runs of `parity bisect` could not be judged, so they do not show that an engine is right.",
    ),
    "not_bisected": ("没有 `parity bisect` 的记录。", "No run of `parity bisect` was recorded."),
    "wenet": (
        "WeNet {role}（{subject}，{target}，{device}），格式与阈值同 2022 初赛的 testEncoderAndDecoder.py：",
        "WeNet {role} ({subject}, {target}, {device}), in the format and with the limits of testEncoderAndDecoder.py "
        "of the 2022 preliminary:",
    ),
    "wenet_missing": ("WeNet 表缺少的内容（见下）：", "The WeNet table lacks what is listed here:"),
    "kept": ("保留的文字", "Text that was kept"),
    "kept_note": (
        "以下文字写在标记块之外，或所在的章节在本模板中不存在；请移到合适的块里。",
        "This was written outside the marked blocks, or belongs to a section that this template has not; move it to "
        "the block where it belongs.",
    ),
    "twice": ("注意：", "Note: "),
}
SENTENCES: dict[str, Text] = {key: Text(zh=zh, en=en) for key, (zh, en) in _SENTENCES.items()}
_HEADINGS: dict[str, tuple[str, str]] = {
    "subject": ("模型", "model"),
    "target": ("引擎", "engine"),
    "origin": ("权重、输入、设备", "weights, inputs, device"),
    "verdict": ("结论", "verdict"),
    "case": ("用例", "case"),
    "output": ("输出", "output"),
    "error": ("最大整体相对误差", "largest relative error"),
    "cosine": ("余弦相似度", "cosine"),
    "latency": ("延迟 (ms)", "latency (ms)"),
    "speed_up": ("加速比", "speed-up"),
    "over": ("相对 {name} 的加速比", "speed-up over {name}"),
    "throughput": ("吞吐 (次/秒)", "throughput (runs/s)"),
    "absolute": ("绝对误差", "absolute error"),
    "relative": ("相对误差", "relative error"),
    "max": ("最大值", "max"),
    "mean": ("平均值", "mean"),
    "median": ("中位数", "median"),
    "overall": ("整体相对误差", "overall relative error"),
    "floor": ("本底", "floor"),
    "metric": ("指标", "metric"),
    "folder": ("目录", "folder"),
    "pictures": ("图片数", "pictures"),
    "actual": ("引擎", "engine"),
    "expected": ("原始模型", "original model"),
    "allowed": ("允许", "allowed"),
    "variant": ("方案", "variant"),
    "settings": ("与第一个方案的差别", "differs from the first in"),
    "gain": ("收益", "gain"),
    "score": ("得分", "score"),
    "reason": ("说明", "remark"),
    "kept_fp32": ("保持 FP32", "kept in FP32"),
    "where": ("执行于", "tried on"),
    "result": ("结果", "result"),
    "relative_l2": ("相对误差", "relative error"),
    "module": ("模块", "module"),
    "op": ("算子", "operator"),
    "local": ("本层误差", "made here"),
    "propagated": ("累积误差", "accumulated"),
    "share": ("占比", "share"),
    "mark": ("标记", "mark"),
    "kernel": ("内核", "kernel"),
    "item": ("项目", "item"),
    "value": ("内容", "value"),
    "size": ("尺寸", "size"),
    "pass": ("通过", "pass"),
    "fail": ("**失败**", "**FAIL**"),
    "not_judged": ("未判定", "not judged"),
    "reference": ("基准", "reference"),
    "comma": ("、", ", "),
    "trained": ("训练好的", "trained"),
    "random": ("随机", "random"),
    "real": ("真实", "real"),
    "file": ("给定文件", "file"),
    "first": ("（基准）", "(the first)"),
    "unknown": ("未记录", "not recorded"),
    "none": ("无", "none"),
}
HEADINGS: dict[str, Text] = {key: Text(zh=zh, en=en) for key, (zh, en) in _HEADINGS.items()}


@dataclass(frozen=True, kw_only=True)
class Words:
    """The wording in one language."""

    lang: Language

    def say(self, key: str, **values: Any) -> str:
        """Return a sentence with its values filled in; these must be Markdown already."""
        return SENTENCES[key].get(self.lang).format(**values)

    def mark(self, mark: str) -> str:
        """Return the mark of a layer, worded as in the page."""
        return WORDS[self.lang][f"mark_{mark}"]

    def kind(self, kind: str) -> str:
        """Return whose fault a bisection found, worded as in the page."""
        return WORDS[self.lang][f"kind_{kind}"]

    def heading(self, key: str, **values: Any) -> str:
        """Return the heading of a column, or a word in a cell."""
        return HEADINGS[key].get(self.lang).format(**values)


def needs(lang: Language) -> Mapping[str, tuple[str, ...]]:
    """Return the words that a section of a finished report holds, by the section's name."""
    words = Words(lang=lang)
    statistics = tuple(words.heading(key) for key in ("absolute", "relative", "max", "mean", "median"))
    return {"accuracy": statistics, "performance": (words.heading("latency"),), "environment": ("GPU", "CPU", "CUDA")}
