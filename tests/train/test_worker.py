import pytest
import torch

from apps.train.config import RunConfig
from apps.train.loop import Hooks
from apps.train.worker import process_group, warn_of_slow_precision


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_cpu_without_bf16_is_said_to_be_slow_at_it(monkeypatch, precision, has_bf16) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    said = []
    hooks = Hooks(on_event=lambda name, fields: said.append((name, fields["advice"])))
    config = RunConfig(base="", data="", out="", precision=precision)
    with process_group():
        warn_of_slow_precision(config, torch.device("cpu"), hooks)
    is_slow = precision == "bf16" and not has_bf16
    assert [name for name, _ in said] == ["precision.slow"] * is_slow
    assert all("--precision fp32" in advice for _, advice in said)
