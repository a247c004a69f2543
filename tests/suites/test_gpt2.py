"""GPT-2 at its small size on the CPU: padding on the left, the cache, texts, summaries and their articles."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

pytest.importorskip("transformers", reason="gpt2 needs transformers: pip install '.[canny2image]'")

from harness import NotJudged, UsageError, discovery
from harness.metrics import measure
from harness.metrics.paired import LEAST_SAMPLES
from harness.metrics.text import ROUGE_KINDS
from harness.systems import Variant, run_study
from suites import articles, causal, texts
from suites.gpt2 import models, test_step
from suites.writing import Writing

SMALL = dataclasses.replace(
    models.FAMILY, tokens=64, new=12, layers=2, words=211, model=lambda: models.model("small"), tokenizer=None
)  # fmt: skip


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any]:
    """Return PyTorch's own prefill and step, on flat inputs and outputs as engines have them."""
    from harness.structure import flatten_inputs, flatten_outputs

    structure = flatten_inputs(causal._step_case(SMALL), "a case")[1]
    prefill, step = causal.Prefill(models.model("small")).eval(), causal.Step(models.model("small")).eval()

    def first(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return flatten_outputs(prefill(**inputs))

    def then(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return flatten_outputs(step(**structure.build(inputs)), taken=inputs)

    return first, then


def test_both_networks_are_suites_of_their_own():
    files = discovery.suite_files(Path(models.__file__).parents[1])
    found = {discovery.load_suite(path).name for name, path in files.items() if name.startswith(("gpt2/", "smollm2/"))}
    assert {name.removeprefix("gpt2-").removeprefix("small-") for name in found if name.startswith("gpt2")} == {
        "prefill", "step"
    }  # fmt: skip
    assert {"smollm2-prefill", "smollm2-step"} < found


def test_at_full_size_it_is_medium():
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(**models.SIZES["full"]))
    assert sum(parameter.numel() for parameter in gpt2.parameters()) == 354_823_168


def test_no_weight_is_all_zeros_and_logits_depend_on_every_token(networks: Any):
    assert all(bool(parameter.any()) for parameter in models.model("small").parameters())
    given = causal.prompts_of(SMALL, 0, 1)
    other = {**given, "input_ids": given["input_ids"].clone()}
    other["input_ids"][0, 0] += 1
    one, two = (networks[0](inputs)["logits"][0, -1] for inputs in (given, other))
    assert float((one - two).abs().max()) > 0.01


def test_padding_on_the_left_changes_nothing(networks: Any):
    together = networks[0](causal.prompts_of(SMALL, 0, 3))["logits"][:, -1]
    alone = torch.cat([networks[0](causal.prompts_of(SMALL, n, n + 1))["logits"][:, -1] for n in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_steps_are_as_one_long_prefill(networks: Any):
    given = causal.prompts_of(SMALL, 0, 3)
    tokens, logits = causal.greedy(*networks, given, 6)
    whole = {
        "input_ids": torch.cat([given["input_ids"], tokens[:, :-1]], 1),
        "attention_mask": torch.nn.functional.pad(given["attention_mask"], (0, 5), value=1),
    }
    assert torch.allclose(networks[0](whole)["logits"][:, -6:], logits, atol=1e-5)


def test_a_cache_that_is_wrong_fails(networks: Any):
    """The keys of another layer, or a step that sees none of the last one's: both are judged by the same metric."""
    first, then = networks
    given = causal.prompts_of(SMALL, 0, 3)
    tokens, right = causal.greedy(first, then, given, 6)

    def stale(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = then(inputs)
        made["output.past.0.key"][:, :, -1] = made["output.past.0.key"][:, :, -2]
        return made

    floor = right + 1e-3 * torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    metric = texts._cache_metric(right, floor, 0.0)
    assert measure(metric, right + (floor - right).flip(0), right).verdict == "pass"
    _, wrong = causal.greedy(first, stale, given, 6, forced=tokens)
    assert measure(metric, wrong, right).verdict == "fail"


def test_logits_that_are_not_finite_choose_no_token():
    def broken(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"logits": torch.full((*inputs["input_ids"].shape, 5), float("nan"))}

    tokens, _ = causal.greedy(broken, broken, causal.padded([[1, 2]]), 3)
    assert tokens.tolist() == [[-1, -1, -1]]


def test_texts_may_part_at_ties_alone():
    logits = torch.tensor([[[0.0, 1.0, 0.99], [0.0, 5.0, 1.0]]])
    metric = texts._text_metric(logits, 0.05)
    wanted = torch.tensor([[1, 1]])
    found = {tokens: measure(metric, torch.tensor([tokens]), wanted) for tokens in ((1, 1), (2, 0), (1, 2), (-1, 1))}
    assert [result.verdict for result in found.values()] == ["pass", "pass", "fail", "fail"]
    assert [result.actual for result in found.values()][:3] == pytest.approx([0, 0.01, 4])


class Spelling:
    """Letters as tokens: what a checkpoint's tokenizer is to the suite."""

    eos_token_id = 4

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join("abcdefgh"[token] for token in tokens)


def test_summaries_end_at_their_end_and_hold_what_went_in():
    family = dataclasses.replace(
        SMALL, tokenizer=Spelling, prompt=lambda tokenizer, article: [len(article) % 3 + 1] * (len(article) % 4 + 1),
        batch=2, new=4,
    )  # fmt: skip

    def network(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(inputs["input_ids"] + 1, 8).float()
        return {"logits": logits, "output.past.0.key": torch.zeros(1)}

    chosen = [articles.Article(text="x" * size, summary="b c") for size in (1, 2, 3)]
    found = texts.summaries(family, network, network, chosen)
    assert found.prompts == ((2, 2), (3, 3, 3), (1, 1, 1, 1))
    assert found.texts == ("d", "", "c d")


@pytest.mark.parametrize("kind", ROUGE_KINDS)
def test_summaries_are_held_to_people_s_pair_by_pair(kind: str):
    pytest.importorskip("rouge_score", reason="rouge-score is not installed: pip install '.[text]'")
    chosen = articles.articles()
    right = texts.Summaries(prompts=(), texts=tuple(article.summary for article in chosen))
    worse = texts.Summaries(prompts=(), texts=tuple("nothing at all" for _ in chosen))
    metric = texts._rouge_metric(kind, chosen)
    assert measure(metric, right, right).verdict == "pass"
    assert measure(metric, worse, right).verdict == "fail"
    few = texts._rouge_metric(kind, chosen[:20])
    assert measure(few, dataclasses.replace(right, texts=right.texts[:20]), right).verdict == "fail"
    twenty = dataclasses.replace(right, texts=right.texts[:20])
    assert measure(few, twenty, twenty).verdict == "not_judged", "20 articles show no rare loss"


def test_there_are_enough_articles_to_judge_by():
    found = articles.articles()
    assert len({article.text for article in found}) == len(found) >= LEAST_SAMPLES
    assert all(len(article.summary) < len(article.text) / 2 for article in found)


def test_articles_of_a_folder_are_read_as_cnn_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARITY_ARTICLES", str(tmp_path))
    with pytest.raises(NotJudged, match="holds no article"):
        articles.articles()
    (tmp_path / "a.jsonl").write_text(json.dumps({"article": "long", "highlights": "short"}) + "\n\n")
    assert articles.articles() == (articles.Article(text="long", summary="short"),)


@pytest.mark.parametrize(
    "line", ["no json", "[]", "{}", '{"article": 1, "summary": "s"}', '{"article": "", "summary": "s"}']
)
def test_a_line_that_is_no_article_is_named(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARITY_ARTICLES", str(tmp_path))
    (tmp_path / "a.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(NotJudged, match=r"a\.jsonl, line 2"):
        articles.articles()


def test_a_checkpoint_that_cannot_be_loaded_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(models.CHECKPOINT, str(tmp_path))
    assert models.family().weights["weights"] == "trained"
    with pytest.raises(NotJudged, match=r"PARITY_GPT2: .* cannot be loaded"):
        models.model.__wrapped__("full")
    (tmp_path / "config.json").write_text('{"n_layer": 3, "n_positions": 99}')
    assert (models.family().layers, models.family().tokens) == (3, 99)


def test_the_contest_s_text_is_judged_where_pytorch_writes_it():
    assert test_step.answered(test_step.ANSWER, test_step.ANSWER) == 1
    assert test_step.answered(" chef", test_step.ANSWER) == 0
    with pytest.raises(NotJudged, match="not the weights"):
        test_step.answered(" chef", " chef")


def test_prefill_and_steps_are_a_system(tmp_path: Path):
    system = Writing(SMALL)
    system.reference = dataclasses.replace(system.reference, steps=5)
    system.variants = (Variant(name="coarse", backend="torch", precisions={"step": "bf16"}, precision="fp32", steps=5),)
    *_, last = run_study(system, cases=1, settings=quiet(tmp_path), folder=tmp_path / "texts")
    reference, coarse = last.variants
    assert set(reference.stages_ms) == {"prefill", "steps"}
    assert coarse.texts[0].tokens == 5
    assert [step.forced > 0 for step in coarse.steps] == [False, True, True, True, True], "the prefill is the same"
    with pytest.raises(UsageError, match="--steps"):
        system.check(Variant(name="long", steps=SMALL.new + 1))
