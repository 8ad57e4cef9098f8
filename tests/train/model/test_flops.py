"""The arithmetic that prices a run, against published figures."""

from dataclasses import replace

import pytest

from apps.train.checkpoint import cadence
from apps.train.config import LoraConfig
from apps.train.model import flops, hardware, load, lora, shape
from apps.train.model.shape import KNOWN
from apps.train.plan import adapter_parameters
from apps.train.presets import debug


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    assert KNOWN[name].num_parameters == parameters


@pytest.mark.parametrize(("name", "gigaflops"), [("llama-7b", 43.6), ("llama-13b", 83.1)])
def test_nominal_flops_per_token_at_2048(name, gigaflops):
    assert flops.nominal_flops_per_token(KNOWN[name], 2048) / 1e9 == pytest.approx(
        gigaflops, abs=0.1
    )


def test_packed_flops_of_whole_rows_count_half_the_attention():
    model = KNOWN["llama-13b"]
    tokens, squared = flops.length_sums([2048, 2048])
    true = flops.packed_flops_per_token(model, tokens, squared) - 6 * model.num_parameters
    nominal = flops.nominal_flops_per_token(model, 2048) - 6 * model.num_parameters
    assert true == pytest.approx(nominal / 2)


def test_packed_flops_fall_with_shorter_conversations():
    model = KNOWN["llama-13b"]
    long = flops.packed_flops_per_token(model, *flops.length_sums([2048]))
    short = flops.packed_flops_per_token(model, *flops.length_sums([256] * 8))
    assert 6 * model.num_parameters < short < long
    assert flops.packed_flops_per_token(model, 0, 0) == 6 * model.num_parameters


def test_packed_flops_of_frozen_layers_are_those_of_a_forward_pass():
    model = KNOWN["llama-13b"]
    whole, top = (flops.packed_flops_per_token(model, 512, 512**2, 0, k) for k in (0, 8))
    attention = 4 * 32 * model.attention_width * 512  # of the 32 layers below, backward
    weights = 4 * (model.num_parameters - 8 * model.layer_parameters)
    weights -= 2 * model.embedding_parameters  # the output layer hands a gradient on
    assert whole - top == pytest.approx(attention + weights)


@pytest.mark.parametrize(("rank", "top_layers"), [(0, 0), (4, 0), (0, 3), (4, 3)])
def test_flops_are_those_that_torch_counts_with_and_without_an_adapter(rank, top_layers):
    """Short of the embedding, which is looked up, and of gradients below the first adapter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=8,
        num_attention_heads=4,
        vocab_size=48,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    if rank:
        lora.inject(model, LoraConfig(rank=rank), top_layers)
    elif top_layers:
        load.freeze_below(model, top_layers)
    ids = torch.ones(2, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids).logits.sum().backward()
    trained = lora.num_parameters(model)
    read = shape.from_config(config.to_dict())
    per_token = flops.nominal_flops_per_token(read, 32, trained, top_layers)
    assert counter.get_total_flops() / ids.numel() == pytest.approx(per_token, rel=0.04)


def test_the_plan_s_count_of_an_adapter_is_the_model_s():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_key_value_heads=8
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    run = replace(debug(), adapter="lora")
    lora.inject(model, run.lora)
    planned = adapter_parameters(run, shape.from_config(config.to_dict()))
    assert lora.num_parameters(model) == planned > 0


@pytest.mark.parametrize(
    ("name", "accelerator", "tokens_per_s", "published"),
    [
        ("llama-13b", "A100-80GB", 2262, 0.5957),
        ("llama-7b", "A100-80GB", 4641, 0.6423),
        ("llama-13b", "H100", 4792, 0.3979),
        ("llama-7b", "H100", 10643, 0.4644),
    ],
)
def test_mfu_reproduces_llm_foundrys_table(name, accelerator, tokens_per_s, published):
    per_token = flops.nominal_flops_per_token(KNOWN[name], 2048)
    peak = hardware.by_name(accelerator).peak_flops
    # Its 13b and 7b have 1.3 % fewer parameters than LLaMA's.
    assert flops.mfu(tokens_per_s, per_token, peak) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("stall_s", "hours", "interval_s", "overhead"),
    [(6, 2, 294, 0.041), (6, 4, 416, 0.029), (2, 4, 240, 0.017), (150, 4, 2078, 0.144)],
)
def test_checkpoint_interval_is_young_and_dalys(stall_s, hours, interval_s, overhead):
    interval = cadence.optimal_interval_s(stall_s, hours * 3600)
    assert interval == pytest.approx(interval_s, abs=1)
    assert cadence.overhead(stall_s, hours * 3600, interval) == pytest.approx(overhead, abs=5e-4)


def test_interval_is_never_shorter_than_the_flush():
    assert cadence.optimal_interval_s(2, 3600, flush_s=150) == 150


def test_notice_longer_than_the_flush_loses_at_most_one_step():
    kind = cadence.lost_work(300, 60, 20, notice_s=120)
    assert (kind.without_notice_s, kind.with_notice_s) == (360, 20)
    short = cadence.lost_work(300, 60, 20, notice_s=30)
    assert short.with_notice_s == short.without_notice_s == 360


def test_parse_reads_count_and_accelerator():
    count, accelerator = hardware.parse("8xA100-80GB")
    assert (count, accelerator.name) == (8, "A100-80GB")
    assert hardware.parse("H200") == (1, hardware.by_name("H200"))
    assert hardware.parse("2xCPU-4GB")[1].memory_bytes == 4 << 30


@pytest.mark.parametrize("gpus", ["0xA100-80GB", "8xA1000", "", "8x"])
def test_unknown_accelerator_is_refused_with_the_known_ones(gpus):
    with pytest.raises(hardware.ConfigError, match="A100-80GB"):
        hardware.parse(gpus)


@pytest.mark.parametrize(
    ("cuda_name", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
    ],
)
def test_cuda_device_names_are_recognised(cuda_name, name):
    assert hardware.recognise(cuda_name).name == name


def test_unknown_cuda_device_is_none():
    assert hardware.recognise("Quadro K620") is None


@pytest.mark.parametrize(
    "cuda_name",
    [
        "NVIDIA L40",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A10",
    ],
)
def test_a_slower_card_of_a_like_name_has_no_peak_that_is_not_its_own(cuda_name: str):
    """An L40 was taken for an L4, whose peak is two thirds of it."""
    assert hardware.recognise(cuda_name) is None


def test_shape_reads_config_json_of_a_transformers_model():
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, vocab_size=100)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 16
    read = shape.from_config(config.to_dict())
    assert (read.num_layers, read.num_kv_heads, read.head_dim) == (3, 2, 16)


def test_shape_counts_the_parameters_that_transformers_makes():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for kv_heads, tied in ((4, False), (2, True)):
        config = LlamaConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            vocab_size=100,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
        )
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        counted = sum(p.numel() for p in model.parameters())
        assert shape.from_config(config.to_dict()).num_parameters == counted


def test_shape_of_another_architecture_is_refused():
    with pytest.raises(shape.ConfigError, match="intermediate_size"):
        shape.from_config({"hidden_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1})
    with pytest.raises(shape.ConfigError, match="model_type is gemma; expected one of the LLaMA"):
        shape.from_config({"model_type": "gemma"})
