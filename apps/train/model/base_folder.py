"""The folder of a base model on this machine, and whether it holds weights that can be read."""

import os

from apps.common.errors import InputError, NotFoundError
from apps.common.files.model_folder import model_folder
from apps.common.files.model_settings import CONFIG, WEIGHTS, weight_files

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")


def fetch_base(base: str) -> str:
    """Local folder of a model folder, bucket or hub id; only safetensors weights are accepted."""
    folder = model_folder(base)
    names = set(os.listdir(folder))
    if CONFIG not in names:
        raise NotFoundError(
            f"{base} has no config.json; expected a Hugging Face model folder or a hub id."
        )
    if not weight_files(folder):
        pickled = next((n for n in _PICKLES if n in names), None)
        if pickled:
            raise InputError(
                f"{base} holds pickled weights ({pickled}), which can run code when they are read; "
                f"convert them on a machine you trust: {_conversion(base)}"
            )
        raise NotFoundError(
            f"{base} has no {WEIGHTS} and no index of several; expected a model's weights. If it "
            f"has pickled ones only, convert them on a machine you trust: {_conversion(base)}"
        )
    return folder


def _conversion(base: str) -> str:
    """A command that writes a model with pickled weights as a safetensors folder."""
    return (
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[C.from_pretrained('{base}').save_pretrained('NEW') for C in (M, T)]\""
    )
