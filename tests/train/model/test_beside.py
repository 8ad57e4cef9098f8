"""The base beside the model says what the base says, whatever has become of the model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows, micro_batch
from apps.train.config import RopeConfig, RunConfig
from apps.train.model import load
from apps.train.model.beside import BaseBeside
from apps.train.presets import debug
from tests.train.families import FAMILIES, ROW_TOKENS, save_family, save_pack

CPU = torch.device("cpu")


def filled(base: str) -> torch.nn.Module:
    model = load.build_on_meta(load.read_config(base, RopeConfig(), ROW_TOKENS))
    load.materialize(model, CPU)
    load.load_weights(model, base)
    return model


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_familys_base_stays_beside_a_model_that_moves(tmp_path: Path, name: str) -> None:
    base = save_family(tmp_path / "base", FAMILIES[name])
    save_pack(tmp_path / "pack", base)
    pack = open_pack(str(tmp_path / "pack"))
    rows = PackRows(pack.split("train"), pack.info.pad_id)
    batch = micro_batch(rows, torch.arange(2).numpy(), CPU)
    model = filled(base)

    def last_hidden() -> torch.Tensor:
        return model.base_model(
            input_ids=batch.ids_BT,
            position_ids=batch.position_ids_BT,
            use_cache=False,
            packing=batch.packing,
        ).last_hidden_state

    layers = load.decoder_layers(model)
    config: RunConfig = replace(debug(), top_layers=len(layers) - 1, keep_base=0.5)
    before = last_hidden()
    beside = BaseBeside(model, layers[1:], replace(config, precision="fp32"), base, CPU)
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(1.5)
    for _ in range(2):
        assert (last_hidden() - before).abs().max() > 1e-2
        found = beside.hidden()
        assert found.weight == 0.5 and not found.hidden.requires_grad
        torch.testing.assert_close(found.hidden, before)
