import pytest
import torch
from safetensors.torch import load_file

from apps.common.errors import InputError
from apps.train.model.weight_files import write_weights


def test_a_weight_that_fp16_cannot_hold_is_refused_and_no_infinity_written(tmp_path) -> None:
    large = torch.tensor([[1.0, 65_504.0], [7e4, 0.0]])
    with pytest.raises(InputError, match=r"^layer\.weight has values that fp16 cannot hold"):
        list(write_weights(str(tmp_path), iter([("layer.weight", large)]), torch.float16))
    assert list(tmp_path.iterdir()) == []
    list(write_weights(str(tmp_path), iter([("layer.weight", large)]), torch.bfloat16))
    assert load_file(tmp_path / "model.safetensors")["layer.weight"].isfinite().all()


def test_quantized_weights_keep_their_type(tmp_path) -> None:
    pieces = {
        "a.weight": torch.ones(2, 4).to(torch.float8_e4m3fn),
        "b.weight_packed": torch.ones(2, 4, dtype=torch.int32),
        "b.weight_scale": torch.ones(2, 1),
    }
    list(write_weights(str(tmp_path), iter(pieces.items()), torch.bfloat16))
    kinds = {n: t.dtype for n, t in load_file(tmp_path / "model.safetensors").items()}
    assert kinds == {
        "a.weight": torch.float8_e4m3fn,
        "b.weight_packed": torch.int32,
        "b.weight_scale": torch.bfloat16,
    }
