"""Completions drawn at one temperature, log-probs taken at another, as open-r1-multimodal's released code has them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from r1mm.errors import BadInput
from r1mm.train.grpo import R1Trainer
from tests.unit.train.on_and_off import save_base, trainer_of


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("qwen2_vl", tmp_path_factory.mktemp("temperature"))


def drawn(trainer: R1Trainer) -> dict[str, Any]:
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    torch.manual_seed(3)
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def scored(trainer: R1Trainer, network: Any, batch: dict[str, Any]) -> torch.Tensor:
    """What the trainer makes of a batch's completions, (B, C)."""
    with torch.no_grad():
        found = trainer._get_per_token_logps_and_entropies(
            network,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].size(1),
        )
    return found[0] * batch["completion_mask"]


def plainly(network: Any, batch: dict[str, Any], temperature: float) -> torch.Tensor:
    """The same of the text alone, row by row, by the library's model and a softmax."""
    rows = torch.zeros(batch["completion_ids"].shape)
    for row in range(len(rows)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = network(input_ids=torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        rows[row, : len(answer)] = (logits / temperature).log_softmax(-1).gather(-1, answer[:, None])[:, 0]
    return rows


def test_sampling_and_log_probs_have_each_its_own(base: Path, tmp_path: Path) -> None:
    blind = {"grouped": True, "images_in_logprobs": "none", "temperature": 0.5}
    stock = trainer_of(base, tmp_path / "stock", **blind)
    ours = trainer_of(base, tmp_path / "ours", logprobs_temperature=1.0, **blind)
    hot = trainer_of(base, tmp_path / "hot", grouped=True, images_in_logprobs="none", temperature=1.0)
    batches = [drawn(trainer) for trainer in (stock, ours, hot)]
    # The same draws as at 0.5, and other ones than at 1.
    assert torch.equal(batches[0]["completion_ids"], batches[1]["completion_ids"])
    assert not torch.equal(batches[1]["completion_ids"], batches[2]["completion_ids"])
    assert (ours.args.temperature, ours.generation_config.temperature) == (0.5, 0.5)
    batch = batches[1]
    for network, reference in ((ours.model, False), (ours.ref_model, True)):
        assert scored(ours, network, batch).allclose(plainly(network, batch, 1.0), atol=1e-5), reference
        assert not scored(ours, network, batch).allclose(plainly(network, batch, 0.5), atol=1e-2), reference
    # TRL's own has one temperature for both.
    assert scored(stock, stock.model, batch).allclose(plainly(stock.model, batch, 0.5), atol=1e-5)


@pytest.mark.usefixtures("vllm_on_cpu")
def test_with_vllm_too(folder: Path, tmp_path: Path) -> None:
    from tests.unit.train.engine import trainer_of as with_vllm

    own = {"images_in_logprobs": "both", "grouped_images": False, "incident_folder": tmp_path, "base": folder / "base"}
    trainer = with_vllm(folder, tmp_path, R1Trainer, {**own, "logprobs_temperature": 1.0}, temperature=0.9, max_steps=1)
    trainer.train()
    assert trainer.vllm_generation.llm.sampling.temperature == 0.9
    (logged,) = [row for row in trainer.state.log_history if "rollout/logp_error/mean" in row]
    assert logged["rollout/logp_error/mean"] < 1e-4  # vLLM's raw log-probs are those of temperature 1
    with pytest.raises(BadInput, match=r"taken at temperature 0\.9 .*; with vLLM it must be 1\.0"):
        with_vllm(folder, tmp_path, R1Trainer, own, temperature=0.9)
