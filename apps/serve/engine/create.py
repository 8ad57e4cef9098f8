"""The one place that turns settings into an engine."""

from apps.serve.engine.config import TorchConfig, VllmConfig
from apps.serve.engine.protocol import Engine, MaskFactory


def create_engine(config: TorchConfig | VllmConfig, mask_factory: MaskFactory | None) -> Engine:
    """An engine that is not started yet. Only the chosen engine's packages are imported."""
    if isinstance(config, TorchConfig):
        from apps.serve.engine.torch.engine import TorchEngine

        return TorchEngine(config, mask_factory)
    from apps.serve.engine.vllm.engine import VllmEngine

    return VllmEngine(config)
