"""`apps.train plan`: its arithmetic against the published cost of Vicuna, and what it says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import MixtralConfig

from apps.common.command.cli import run
from apps.common.errors import ConfigError
from apps.train.__main__ import COMMANDS
from apps.train.config import LoraConfig
from apps.train.model import flops, shape
from apps.train.plan import PlanConfig, make_plan, presets
from apps.train.planning import memory, timing, workload
from apps.train.planning import text as plan_text

VICUNA_13B = presets()["vicuna-13b"]()
VICUNA_7B = presets()["vicuna-7b"]()


def test_tokens_are_the_published_sets():
    plan = make_plan(VICUNA_13B)
    assert plan.data.epoch_tokens == pytest.approx(207e6, rel=0.01)
    assert plan.data.tokens == pytest.approx(622e6, rel=0.01)
    assert 3_150 < plan.data.steps < 3_250  # 134 K segments in batches of 128 give 3,134


@pytest.mark.parametrize(
    ("mfu", "hours"), [(0.3, 19.5), (0.4, 14.6), (0.5, 11.7), (0.6, 9.7), (0.65, 9.0)]
)
def test_packed_hours_of_13b_on_eight_a100(mfu, hours):
    plan = make_plan(replace(VICUNA_13B, mfu=mfu))
    assert plan.training.hours == pytest.approx(hours, abs=0.06)


@pytest.mark.parametrize(
    ("mfu", "hours"), [(0.3, 25.3), (0.4, 19.0), (0.5, 15.2), (0.6, 12.7), (0.65, 11.7)]
)
def test_padded_hours_of_13b_on_eight_a100(mfu, hours):
    plan = make_plan(replace(VICUNA_13B, mfu=mfu, fill=0.757))
    assert plan.training.hours == pytest.approx(hours, abs=0.06)


@pytest.mark.parametrize(("mfu", "hours", "usd"), [(0.4, 7.7, 96), (0.5, 6.1, 77), (0.6, 5.1, 64)])
def test_packed_hours_and_dollars_of_7b(mfu, hours, usd):
    plan = make_plan(replace(VICUNA_7B, mfu=mfu, price="blog-2023"))
    assert plan.training.hours == pytest.approx(hours, abs=0.06)
    assert plan.cost.training_usd == pytest.approx(usd, abs=1)


@pytest.mark.parametrize(("price", "usd"), [("1.56", 121), ("spot", 67), ("0.63", 49)])
def test_dollars_of_13b_at_sixty_percent(price, usd):
    plan = make_plan(replace(VICUNA_13B, mfu=0.6, price=price))
    assert plan.cost.training_usd == pytest.approx(usd, abs=1)


def test_the_blogs_own_day_is_reproduced():
    # 821 M padded slots in 24 hours on eight GPUs at $300: 31.7 % MFU of slots.
    plan = make_plan(replace(VICUNA_13B, mfu=0.317, fill=0.757, price="blog-2023"))
    assert plan.training.hours == pytest.approx(24, abs=0.2)
    assert plan.cost.training_usd == pytest.approx(300, abs=3)
    assert plan.training.tokens_per_s_per_gpu / plan.data.fill == pytest.approx(1_188, rel=0.01)


def test_measured_rate_of_llm_foundry_gives_its_cost():
    plan = make_plan(replace(VICUNA_13B, tokens_per_s=2_262, price="1.56"))
    assert plan.training.gpu_hours == pytest.approx(77.5, abs=0.2)
    assert plan.cost.training_usd == pytest.approx(121, abs=1)


def test_default_speed_is_the_published_one_and_says_so():
    plan = make_plan(VICUNA_13B)
    assert plan.training.hours == pytest.approx(9.7, abs=0.15)
    assert "llm-foundry" in plan.training.source


def test_recomputation_costs_time():
    none = make_plan(VICUNA_13B).training
    full = make_plan(replace(VICUNA_13B, activation_checkpointing="full")).training
    assert full.hours > 1.2 * none.hours
    assert "full recomputation" in full.source


def test_checkpoint_of_13b_is_156_gb_and_its_state_26_gb_a_gpu():
    plan = make_plan(VICUNA_13B)
    assert plan.checkpoints.size_bytes == pytest.approx(156e9, rel=0.01)
    parts = plan.memory.parts
    assert parts.weights + parts.gradients + parts.optimizer == pytest.approx(26e9, rel=0.01)
    assert plan.checkpoints.interval_s >= plan.checkpoints.flush_s


def test_lost_work_is_bounded_by_interval_and_flush_or_one_step():
    plan = make_plan(replace(VICUNA_13B, notice_s=120.0))
    lost = plan.preemptions.lost_work
    bound = plan.checkpoints.interval_s + plan.checkpoints.flush_s
    assert lost.without_notice_s == bound
    assert lost.with_notice_s == plan.training.step_s
    assert plan.preemptions.hours > plan.training.hours


def test_an_interval_in_steps_or_seconds_is_planned_as_it_is_run():
    stated = replace(VICUNA_13B.checkpoint, interval_steps=100)
    plan = make_plan(replace(VICUNA_13B, checkpoint=stated))
    assert plan.checkpoints.interval_s == pytest.approx(100 * plan.training.step_s)
    stated = replace(VICUNA_13B.checkpoint, interval_s=900.0)
    assert make_plan(replace(VICUNA_13B, checkpoint=stated)).checkpoints.interval_s == 900.0


def test_preemptions_faster_than_progress_have_no_end():
    recipe = replace(VICUNA_13B, checkpoint=replace(VICUNA_13B.checkpoint, mtbf_h=0.1))
    plan = make_plan(recipe)
    assert plan.preemptions.hours is None and plan.cost.expected_usd is None
    assert "no end" in "\n".join(plan_text.lines(plan))


def test_13b_on_eight_a100_40_needs_switches_and_they_are_named():
    plan = make_plan(replace(VICUNA_13B, gpus="8xA100-40GB"))
    assert not plan.memory.fits
    assert plan.memory.remedies
    for remedy in plan.memory.remedies:
        assert make_plan(_apply(VICUNA_13B, remedy.switches, "8xA100-40GB")).memory.fits
    assert "DOES NOT FIT" in "\n".join(plan_text.lines(plan))


def test_13b_on_one_small_gpu_is_helped_by_a_larger_one_only():
    plan = make_plan(replace(VICUNA_13B, gpus="1xL4", mfu=0.3, price="0.5"))
    assert not plan.memory.fits
    text = "\n".join(plan_text.lines(plan))
    assert "offload" in text or "larger GPUs" in text


def test_a_run_that_does_not_fit_has_no_price_but_its_remedies_have():
    """Each remedy costs what the plan of the remedied run says."""
    recipe = replace(VICUNA_13B, gpus="4xA100-40GB")
    plan = make_plan(recipe)
    assert plan.cost.training_usd is None and plan.cost.expected_usd is None
    text = "\n".join(plan_text.lines(plan))
    assert "DOES NOT FIT" in text and "MFU" not in text and "\ncost" not in text
    for remedy in plan.memory.remedies:
        mended = make_plan(_apply(recipe, remedy.switches, recipe.gpus))
        assert mended.cost.training_usd == pytest.approx(remedy.usd)
        assert f"${remedy.usd:,.2f} for training alone" in text


def test_slots_without_a_row_take_time():
    """96 rows on 64 ranks: each takes a micro-batch of two, so 32 of 128 slots are empty."""
    fast = replace(VICUNA_7B, network="1e6")
    even, uneven = (make_plan(replace(fast, gpus=f"{n}xA100-80GB")) for n in (48, 64))
    assert (even.training.empty_rows, uneven.training.empty_rows) == (0, 32)
    assert uneven.training.hours == pytest.approx(even.training.hours)
    assert uneven.training.gpu_hours == pytest.approx(even.training.gpu_hours * 64 / 48)
    assert uneven.training.tokens_per_s_per_gpu < 0.8 * even.training.tokens_per_s_per_gpu
    assert uneven.sizing.whole_batch_rows == 128
    filled = make_plan(replace(fast, gpus="64xA100-80GB", global_batch_rows=128))
    assert filled.training.hours == pytest.approx(uneven.sizing.whole_batch_hours)
    assert "32 of 128 slots" in "\n".join(plan_text.lines(uneven))


def test_machines_that_talk_over_a_slow_network_wait_for_it():
    """A step on 16 GPUs: 2 machines, 100 Gbit/s each, 9.4 GB/s of them reached."""
    plan = make_plan(replace(VICUNA_7B, gpus="16xA100-80GB"))
    micro_batches, weights = plan.data.accumulation, 6_738_415_616
    again = 31 * shape.load("llama-7b").layer_parameters
    moved = micro_batches * (2 * (weights + again) + 4 * weights) * 15 / 16
    assert plan.training.network.num_machines == 2
    assert plan.training.exchange_s == pytest.approx(moved / (0.75 * 100e9 / 8))
    assert plan.training.step_s == plan.training.exchange_s
    assert "longer than computing" in "\n".join(plan_text.lines(plan))
    quick = make_plan(replace(VICUNA_7B, gpus="16xA100-80GB", network="infiniband"))
    assert quick.training.exchange_s < quick.training.step_s < 0.3 * plan.training.step_s
    assert quick.training.hours == pytest.approx(make_plan(VICUNA_7B).training.hours / 2)
    once = make_plan(replace(VICUNA_7B, gpus="16xA100-80GB", reshard="step")).training
    assert once.exchange_s == pytest.approx((2 + 4) * weights * 15 / 16 / (0.75 * 100e9 / 8))


def test_offload_takes_the_time_of_its_copies_and_of_the_update_on_cpus():
    """Eight A100: a rank's eighth goes up, all but the last layer twice, and its gradients down."""
    plan = make_plan(replace(VICUNA_7B, cpu_offload=True))
    training, weights = plan.training, 6_738_415_616
    again = 31 * shape.load("llama-7b").layer_parameters
    copied = plan.data.accumulation * (4 * (weights + again) + 4 * weights) / 8
    assert training.host_copies_s == pytest.approx(copied / (0.75 * 32e9))
    assert training.host_update_s == pytest.approx(weights * 28 / 100e9)
    without = make_plan(VICUNA_7B).training
    assert (without.host_copies_s, without.host_update_s) == (0, 0)
    moved = training.exchange_s + training.host_copies_s
    assert training.step_s == pytest.approx(max(without.step_s, moved) + training.host_update_s)
    assert "s for the update on the CPUs" in "\n".join(plan_text.lines(plan))
    alone = make_plan(replace(VICUNA_7B, cpu_offload=True, gpus="1xA100-80GB")).training
    assert alone.host_update_s == pytest.approx(training.host_update_s), "the same weights"


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_frozen_layers_go_up_in_the_compute_type_and_once_without_a_backward_pass(adapter):
    """Of 32 layers the upper eight: they and one below them are gathered again."""
    top = replace(VICUNA_7B, cpu_offload=True, top_layers=8, adapter=adapter, gpus="16xA100-80GB")
    plan, layer = make_plan(top), shape.load("llama-7b").layer_parameters
    trained, whole = plan.trained_parameters, 6_738_415_616
    if adapter == "none":  # seven trained layers again, and two frozen ones
        copied = 8 * trained + 4 * 7 * layer + 2 * (whole - trained + 2 * layer)
    else:
        copied = 12 * trained + 2 * (whole + 9 * layer)
    copied *= plan.data.accumulation / 16
    assert plan.training.host_copies_s == pytest.approx(copied / (0.75 * 32e9))
    moved = plan.data.accumulation * (2 * (whole + 9 * layer) + 4 * trained) * 15 / 16
    assert plan.training.exchange_s == pytest.approx(moved / (0.75 * 12.5e9))


def test_a_speed_measured_with_offload_has_it_in():
    stated = replace(VICUNA_7B, cpu_offload=True, tokens_per_s=1000.0)
    assert make_plan(stated).training.host_update_s == 0
    remedy = make_plan(replace(VICUNA_7B, gpus="1xRTX-4090", tokens_per_s=1000.0))
    offloaded = [r for r in remedy.memory.remedies if "cpu_offload" in r.switches]
    plain = [r for r in remedy.memory.remedies if "cpu_offload" not in r.switches]
    assert offloaded or plain
    assert all(r.hours > remedy.training.hours for r in offloaded)


def test_the_published_speed_of_one_machine_is_not_slowed_by_its_own_links():
    training = make_plan(VICUNA_13B).training
    assert 0 < training.exchange_s < training.step_s
    assert training.mfu == pytest.approx(0.5957)


def test_the_plan_names_the_most_gpus_that_earn_their_price():
    slow, fast = (
        make_plan(replace(VICUNA_7B, network=network)) for network in ("tcp", "infiniband-ndr")
    )
    assert slow.sizing.most_gpus == 8, "a second machine would wait for the network"
    assert fast.sizing.most_gpus == 96, "a row each"
    spread = make_plan(replace(VICUNA_7B, gpus="96xA100-80GB", network="infiniband-ndr"))
    assert spread.training.hours == pytest.approx(fast.sizing.hours)
    assert spread.training.gpu_hours <= 1.1 * fast.training.gpu_hours
    wider = make_plan(replace(VICUNA_7B, gpus="9xA100-80GB"))
    assert wider.training.gpu_hours > 1.1 * slow.training.gpu_hours


def test_a_card_that_nobody_priced_is_planned_without_dollars():
    plan = make_plan(replace(VICUNA_7B, gpus="8xMI300X"))
    assert plan.machines.price is None and plan.cost.training_usd is None
    assert plan.training.hours > 0 and "assumed" in plan.training.source
    assert "no price known" in "\n".join(plan_text.lines(plan))
    priced = make_plan(replace(VICUNA_7B, gpus="8xMI300X", price="2"))
    assert priced.cost.training_usd == pytest.approx(16 * plan.training.hours)


def test_a_card_is_described_by_its_data_sheet():
    described = replace(VICUNA_7B, gpus="8xNew", gpu_flops=312e12, gpu_memory_gb=85.0, mfu=0.5957)
    ours, known = make_plan(described), make_plan(replace(VICUNA_7B, mfu=0.5957))
    assert ours.training.hours == pytest.approx(known.training.hours)
    assert ours.memory.available_bytes == 85e9
    with pytest.raises(ConfigError, match="--gpu-flops and --gpu-memory-gb together"):
        make_plan(replace(described, gpu_memory_gb=None))
    with pytest.raises(ConfigError, match=r"unknown accelerator 'New'.*--gpu-flops"):
        make_plan(replace(described, gpu_flops=None, gpu_memory_gb=None))


@pytest.mark.parametrize("network", ["wifi", "0", "-3", "nan"])
def test_a_network_that_is_none_is_refused(network):
    with pytest.raises(ConfigError, match="expected one of tcp, efa"):
        make_plan(replace(VICUNA_7B, gpus="16xH100", network=network))


def test_a_restart_reads_the_checkpoint():
    slow = make_plan(replace(VICUNA_13B, storage_gb_per_s=0.5)).preemptions
    quick = make_plan(replace(VICUNA_13B, storage_gb_per_s=5.0)).preemptions
    assert slow.restart_s == pytest.approx(600 + 312.4, abs=0.1)
    assert quick.restart_s == pytest.approx(600 + 31.2, abs=0.1)


def _apply(recipe: PlanConfig, switches: dict[str, str], gpus: str) -> PlanConfig:
    """What the printed switches would set."""
    changed = replace(recipe, gpus=gpus)
    for name, value in switches.items():
        if name == "optimizer_state":
            changed = replace(changed, optim=replace(changed.optim, state=value))
        elif name == "micro_batch_rows":
            changed = replace(changed, micro_batch_rows=int(value))
        elif name == "cpu_offload":
            changed = replace(changed, cpu_offload=True)
        else:
            changed = replace(changed, **{name: value})
    return changed


def test_every_preset_fits_its_own_machines():
    for name in ("vicuna-7b", "vicuna-13b", "vicuna-7b-16k", "llama-3-8b"):
        plan = make_plan(presets()[name]())
        assert plan.memory.fits, f"{name}: {plan.memory.total_bytes / 1e9:.1f} GB"


def test_a_published_speed_with_recomputation_is_not_slowed_by_it_twice():
    small = replace(VICUNA_13B, gpus="8xA100-40GB", micro_batch_rows=1)
    full = make_plan(replace(small, activation_checkpointing="full")).training
    none = make_plan(small).training
    assert full.mfu == pytest.approx(0.4394)
    assert none.mfu == pytest.approx(0.4394 / 0.79)
    assert "none recomputation where it had full" in none.source


def test_the_debug_preset_is_planned_on_cpus():
    plan = make_plan(replace(presets()["debug"](), price="0.1", tokens_per_s=2_000))
    assert (plan.machines.num_gpus, plan.machines.accelerator) == (2, "CPU")
    assert plan.memory.fits


def test_a_precision_left_to_the_machine_is_planned_at_its_largest():
    def memory(recipe, precision):
        return make_plan(replace(recipe, precision=precision)).memory

    debug, vicuna = presets()["debug"](), VICUNA_7B
    assert memory(debug, "auto") == memory(debug, "fp32") != memory(debug, "bf16")
    assert memory(vicuna, "auto") == memory(vicuna, "bf16") != memory(vicuna, "fp32")


def test_a_cpu_has_no_peak_to_take_a_share_of_but_a_rough_speed():
    recipe = presets()["debug"]()
    with pytest.raises(ConfigError, match="--measured"):
        make_plan(replace(recipe, mfu=0.4))
    plan = make_plan(recipe)
    assert 500 < plan.training.tokens_per_s_per_gpu < 10_000
    assert "roughly" in plan.training.source


def test_a_machine_of_ones_own_costs_nothing_and_is_not_taken_away():
    plan = make_plan(presets()["debug"]())
    assert plan.machines.price.usd_per_gpu_hour == plan.cost.training_usd == 0
    assert not plan.machines.price.preemptible
    assert make_plan(replace(presets()["debug"](), price="0.05")).cost.training_usd > 0


def test_attention_is_priced_over_the_conversations_not_the_row():
    """In rows of 16,384 a token sees its own conversation: 5,920 tokens, not the whole row."""
    recipe = presets()["vicuna-7b-16k"]()
    training = make_plan(recipe).training
    selective = 0.88 * 0.5957 * 312e12
    flops_per_token = 6 * 6_738_415_616 + 12 * 32 * 4096 * 5_920
    assert training.tokens_per_s_per_gpu == pytest.approx(
        0.985 * selective / flops_per_token, rel=1e-3
    )
    assert "5,920 tokens" in training.source
    same = make_plan(replace(recipe, mfu=training.mfu)).training  # as metrics.jsonl would say it
    assert same.hours == pytest.approx(training.hours)


def test_steps_override_epochs():
    plan = make_plan(replace(VICUNA_7B, steps=10))
    assert plan.data.steps == 10
    assert plan.data.tokens == pytest.approx(10 * 96 * 2048 * 0.985, rel=0.01)


def test_top_layers_take_their_share_of_the_adapter_and_of_the_time():
    whole, top = (
        make_plan(replace(VICUNA_7B, adapter="lora", top_layers=layers)) for layers in (0, 8)
    )
    assert top.trained_parameters == whole.trained_parameters * 8 / 32
    assert "lower 24 layers are counted with a forward pass alone" in top.training.source
    assert "forward pass alone" not in whole.training.source
    assert 0.5 < top.training.hours / whole.training.hours < 0.75
    with pytest.raises(ConfigError, match="top_layers is 33 and the model has 32 decoder layers"):
        make_plan(replace(VICUNA_7B, top_layers=33))


def test_a_base_beside_the_model_is_planned_in_memory_and_time():
    top = replace(VICUNA_7B, top_layers=8)
    plain, held = (make_plan(replace(top, keep_base=weight)) for weight in (0.0, 1.0))
    model = shape.load("llama-7b")
    layers = 8 * model.layer_parameters
    assert held.memory.parts.gathered - plain.memory.parts.gathered == 2 * layers
    whole = 2 * model.num_parameters + 4 * layers + 2 * 32000 * 4096
    forward = 2 * (layers + 32000 * 4096) / whole
    assert held.training.hours == pytest.approx(plain.training.hours * (1 + forward))
    assert held.training.mfu == pytest.approx(plain.training.mfu / (1 + forward))
    mixture = replace(model, num_experts=8, active_experts=2)
    setup = memory.Setup(world_size=8, trained_layers=8, base_layers=8)
    beside = 2 * (8 * mixture.active_layer_parameters + mixture.embedding_parameters)
    rest = flops.weight_flops_per_token(mixture, 0, 8)
    assert timing._work_ratio(mixture, setup) == pytest.approx(1 + beside / rest)
    stated = [make_plan(replace(top, keep_base=w, tokens_per_s=900.0)) for w in (0.0, 1.0)]
    assert stated[0].training.hours == stated[1].training.hours


def test_top_layers_are_what_is_trained_kept_in_moments_and_saved():
    """One card of 80 GB holds LLaMA-7B where eight layers are trained, and not the whole."""
    alone = replace(VICUNA_7B, gpus="1xH200", micro_batch_rows=1)
    whole, top = (make_plan(replace(alone, top_layers=layers)) for layers in (0, 8))
    layers = 8 * shape.load("llama-7b").layer_parameters
    frozen = whole.parameters - layers
    assert (top.trained_parameters, whole.trained_parameters) == (layers, whole.parameters)
    assert top.checkpoints.size_bytes == 12 * layers
    assert top.memory.parts.optimizer == 8 * layers
    assert top.memory.parts.weights == 4 * layers + 2 * frozen
    assert top.memory.total_bytes < 0.5 * whole.memory.total_bytes
    said = "\n".join(plan_text.lines(top))
    assert f"{layers / 1e6:,.1f} M of them trained" in said


def test_lora_trains_and_checkpoints_only_the_adapter():
    plan = make_plan(replace(VICUNA_7B, adapter="lora"))
    # rank 16 on the seven linear maps of LLaMA-7B: peft reports 39,976,960 trainable parameters.
    assert plan.trained_parameters == 39_976_960
    assert plan.checkpoints.size_bytes < 1e9


def test_frozen_weights_take_a_third_less_time_than_trained_ones():
    """4N + 6A + 12 L d s in place of 6N + 12 L d s; recomputation is the same work beside less."""
    n, adapter, attention = 6_738_415_616, 39_976_960, 12 * 32 * 4096 * 2048
    share = (4 * n + 6 * adapter + attention) / (6 * n + attention)
    small = replace(VICUNA_7B, activation_checkpointing="none")
    whole, lora = (make_plan(replace(small, adapter=kind)).training for kind in ("none", "lora"))
    assert lora.hours == pytest.approx(share * whole.hours)
    assert lora.mfu == pytest.approx(whole.mfu)
    stated = make_plan(replace(small, adapter="lora", mfu=lora.mfu)).training
    assert stated.hours == pytest.approx(lora.hours)
    again = make_plan(replace(small, adapter="lora", activation_checkpointing="full")).training
    extra = (1 / 0.79 - 1) * 6 * n / (4 * n + 6 * adapter)
    assert again.hours == pytest.approx(lora.hours * (1 + extra))
    assert "for full recomputation under LoRA where it had none" in again.source


def test_padding_to_2048_wastes_a_quarter_of_real_sharegpt():
    folder = os.environ.get("CRIA_TEST_DATA")
    if not folder:
        pytest.skip("CRIA_TEST_DATA is unset: no ShareGPT length sample")
    lengths = json.loads((Path(folder) / "sharegpt-lengths" / "lengths.json").read_text())
    padded = sum(lengths) / (2048 * len(lengths))
    assert padded == pytest.approx(0.757, abs=5e-4)
    assert sum(lengths) / len(lengths) == pytest.approx(1_550, abs=1)
    assert 0.995 / padded == pytest.approx(1.31, abs=0.01)


def test_stated_fill_decides_the_rows():
    full = workload.stated(200, 1_024, 2048, 1, 1.0)
    half = workload.stated(200, 1_024, 2048, 1, 0.5)
    assert (full.epoch_rows, half.epoch_rows) == (100, 200)
    assert half.fill == 0.5


def test_a_family_that_deepspeed_was_not_proven_for_has_no_plan_under_it(tmp_path) -> None:
    config = MixtralConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, vocab_size=128,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    settings = replace(VICUNA_13B, base=str(tmp_path), strategy="deepspeed")
    with pytest.raises(ConfigError, match="has not been proven for mixtral models"):
        make_plan(settings)
    assert make_plan(replace(settings, strategy="fsdp")).parameters > 0


def test_deepspeed_is_offered_only_switches_that_it_has():
    plan = make_plan(replace(VICUNA_13B, gpus="8xA100-40GB", strategy="deepspeed"))
    assert plan.memory.remedies
    for remedy in plan.memory.remedies:
        assert not {"optimizer_state", "adapter"} & remedy.switches.keys()


def test_the_command_prints_saves_and_exits_by_the_book(tmp_path, capsys):
    command = ["plan", "--preset", "vicuna-13b", "--gpus", "8xA100-80GB", "--price", "spot"]
    assert run("apps.train", COMMANDS, [*command, "--save", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert printed["memory"] == saved["memory"] and saved["memory"]["fits"]
    assert (tmp_path / "config.yaml").exists()
    assert run("apps.train", COMMANDS, ["plan", "--gpus", "8xA1000"]) == 2
    assert "A100-80GB" in capsys.readouterr().err


def test_a_target_that_is_named_twice_is_counted_once() -> None:
    once, twice = (
        replace(VICUNA_7B, adapter="lora", lora=LoraConfig(targets=("q_proj",) * times))
        for times in (1, 2)
    )
    assert make_plan(twice).trained_parameters == make_plan(once).trained_parameters


def test_a_part_of_an_epoch_that_holds_no_row_is_a_step_as_in_a_run() -> None:
    plan = make_plan(replace(VICUNA_7B, epochs=1e-9))
    assert plan.data.steps == 1 and plan.training.hours > 0
