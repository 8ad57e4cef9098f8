"""What `serve run` is given: a file of one model, and settings of two."""

from pathlib import Path

import yaml

from apps.serve.config import ModelConfig, ServeConfig
from apps.serve.page.config import PageConfig


def file_of(folder: Path, model_folder: Path, **changes: object) -> str:
    model = {"name": "one", "path": str(model_folder), **changes}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump({"models": [model]}))
    return str(path)


def two(model_folder: Path) -> ServeConfig:
    models = tuple(ModelConfig(name=n, path=str(model_folder)) for n in ("one", "two"))
    return ServeConfig(models=models, page=PageConfig(database_url="sqlite:////tmp/v.db"))
