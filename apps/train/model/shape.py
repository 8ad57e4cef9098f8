"""The numbers of a LLaMA-family model that decide its cost: parameters, by part.

A shape comes from a model folder's `config.json` (no weights are read) or from a published
model by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from apps.common.errors import ConfigError
from apps.common.files.model_settings import ModelSettings, read_settings
from apps.train.config import RopeConfig

FAMILY = (
    "gemma2",
    "gemma3_text",
    "llama",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
)
"""model types whose loss, ids and export are those of transformers, by test; another may scale or
route what the loop computes plainly, and would be trained wrongly without a word"""
_UNTRIED_UNDER_DEEPSPEED = ("gemma2", "gemma3_text", "mixtral", "qwen3_moe")
"""stacked experts and scaled embeddings, which no test has compared with FSDP2's losses there"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes of a decoder-only transformer with gated MLP, RMSNorm and grouped-query attention."""

    hidden_size: int
    """Width of the residual stream."""
    num_layers: int
    """Number of decoder layers."""
    num_heads: int
    """Query heads per layer."""
    num_kv_heads: int
    """Key and value heads per layer."""
    head_dim: int
    """Width of one head."""
    intermediate_size: int
    """Width of the MLP."""
    vocab_size: int
    """Rows of the embedding."""
    tied_embeddings: bool = False
    """Whether the output head is the embedding matrix."""
    context_tokens: int = 2048
    """Longest sequence the base model was trained on, in tokens."""
    has_fused_maps: bool = False
    """Whether queries, keys and values are one map, and gate and up another (Phi-3)."""
    num_experts: int = 1
    """MLPs of a layer; above 1 a router picks among them for each token."""
    active_experts: int = 1
    """MLPs that one token goes through."""
    num_dense_layers: int = 0
    """Layers of a mixture that have one MLP and no router."""
    dense_intermediate_size: int = 0
    """Width of that MLP."""
    family: str = "llama"
    """Its model_type, one of FAMILY."""

    @property
    def attention_width(self) -> int:
        """Heads times head width: the d of the attention FLOPs."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Key and value heads times head width."""
        return self.num_kv_heads * self.head_dim

    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear map of a layer, by the name transformers gives it."""
        d, q, kv = self.hidden_size, self.attention_width, self.kv_width
        f = self.intermediate_size
        if self.has_fused_maps:
            attention = {"qkv_proj": (d, q + 2 * kv), "o_proj": (q, d)}
            return {**attention, "gate_up_proj": (d, 2 * f), "down_proj": (f, d)}
        attention = {"q_proj": (d, q), "k_proj": (d, kv), "v_proj": (d, kv), "o_proj": (q, d)}
        if self.num_experts > 1:  # stacked in one tensor, which is no linear map
            return attention
        return {**attention, "gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer, of a mixture one with experts."""
        return self._layer(self.num_experts)

    def _layer(self, num_experts: int) -> int:
        matrices = self._linear_parameters
        if self.num_experts > 1:
            matrices += num_experts * 3 * self.hidden_size * self.intermediate_size
            matrices += self.num_experts * self.hidden_size
        return matrices + 2 * self.hidden_size

    @property
    def _linear_parameters(self) -> int:
        return sum(rows * columns for rows, columns in self.linear_sizes().values())

    def _layers(self, num_experts: int) -> int:
        """All layers, of which the dense ones hold no experts."""
        dense = self._linear_parameters + 3 * self.hidden_size * self.dense_intermediate_size
        num_others = self.num_layers - self.num_dense_layers
        return num_others * self._layer(num_experts) + self.num_dense_layers * (
            dense + 2 * self.hidden_size
        )

    @property
    def active_layer_parameters(self) -> int:
        """Those of one decoder layer that one token is multiplied with."""
        return self._layer(self.active_experts)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token is multiplied with: all but the experts it does not visit."""
        return self._layers(self.active_experts) + self.outer_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding alone."""
        return self.vocab_size * self.hidden_size

    @property
    def outer_parameters(self) -> int:
        """Parameters outside the layers: embedding, output head, last norm."""
        matrices = 1 if self.tied_embeddings else 2
        return matrices * self.embedding_parameters + self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters, each counted once."""
        return self._layers(self.num_experts) + self.outer_parameters


def _llama(
    hidden: int, layers: int, heads: int, mlp: int, context_tokens: int = 2048
) -> ModelShape:
    """A first-generation LLaMA shape."""
    return ModelShape(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=mlp,
        vocab_size=32000,
        context_tokens=context_tokens,
    )


def _llama_3(hidden: int, layers: int, heads: int, mlp: int) -> ModelShape:
    """Eight heads of keys and values, and a larger vocabulary."""
    shape = _llama(hidden, layers, heads, mlp, 8192)
    return replace(shape, vocab_size=128256, num_kv_heads=8)


KNOWN = {
    "debug": replace(_llama(320, 2, 5, 1024), vocab_size=2100, tied_embeddings=True),
    "llama-7b": _llama(4096, 32, 32, 11008),
    "llama-13b": _llama(5120, 40, 40, 13824),
    "llama-30b": _llama(6656, 60, 52, 17920),
    "llama-65b": _llama(8192, 80, 64, 22016),
    "llama-2-7b": _llama(4096, 32, 32, 11008, 4096),
    "llama-2-13b": _llama(5120, 40, 40, 13824, 4096),
    "llama-2-70b": replace(_llama(8192, 80, 64, 28672, 4096), num_kv_heads=8),
    "llama-3-8b": _llama_3(4096, 32, 32, 14336),
    "llama-3-70b": _llama_3(8192, 80, 64, 28672),
}


def from_config(config: Mapping[str, object]) -> ModelShape:
    """Read a Hugging Face `config.json` mapping; ConfigError names the key that is missing."""
    if (kind := config.get("model_type", FAMILY[0])) not in FAMILY:
        raise ConfigError(
            f"model_type is {kind}; expected one of the LLaMA family: {', '.join(FAMILY)}"
        )
    settings = ModelSettings(config)
    sizes = settings.sizes()
    return ModelShape(
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim,
        intermediate_size=settings.integer("moe_intermediate_size") or sizes.intermediate_size,
        vocab_size=sizes.vocab_size,
        tied_embeddings=sizes.is_tied,
        context_tokens=settings.positions or 2048,
        has_fused_maps=kind == "phi3",
        num_experts=settings.integer("num_local_experts") or settings.integer("num_experts") or 1,
        active_experts=settings.integer("num_experts_per_tok") or 1,
        num_dense_layers=_num_dense_layers(settings, sizes.num_layers),
        dense_intermediate_size=sizes.intermediate_size,
        family=str(kind),
    )


def _num_dense_layers(settings: ModelSettings, num_layers: int) -> int:
    """Layers of Qwen's mixtures without experts (transformers, Qwen3MoeDecoderLayer).

    With decoder_sparse_step 2 every second layer has experts: of layers 0 to 3 those are 1 and 3.
    """
    step = settings.integer("decoder_sparse_step")
    if step is None:
        return 0
    listed = settings.config.get("mlp_only_layers") or []
    dense = set(cast(list[int], listed)) | {i for i in range(num_layers) if (i + 1) % step}
    return sum(layer in dense for layer in range(num_layers))


def load(source: str) -> ModelShape:
    """The shape of a model folder (path or URI), or of one in KNOWN by its name."""
    if source in KNOWN:
        return KNOWN[source]
    settings = read_settings(source)
    if not settings.config:
        raise ConfigError(
            f"{source!r} is neither a model folder with a config.json nor a known shape; "
            f"expected one of {', '.join(KNOWN)} or such a folder"
        )
    return from_config(settings.config)


def check_reach(base: str, positions: int, rope: RopeConfig, row_tokens: int) -> None:
    """Refuse rows longer than the model's positions, stretched by `rope`: for a run and its plan.

    A sliding window bounds nothing: attention over packed rows keeps to it.
    """
    reach = positions if rope.kind == "none" else int(positions * rope.factor)
    if row_tokens > reach:
        raise ConfigError(
            f"Rows have {row_tokens} tokens but {base} reaches {reach}; pack with --max-length "
            f"{reach} or extend it: --rope.kind linear --rope.factor {-(-row_tokens // positions)}."
        )


def check_strategy(strategy: str, family: str) -> None:
    """Refuse families that a strategy was not proven for: for a run and its plan."""
    if strategy == "deepspeed" and family in _UNTRIED_UNDER_DEEPSPEED:
        raise ConfigError(
            f"--strategy deepspeed has not been proven for {family} models; leave --strategy out "
            "for FSDP2."
        )


def check_top_layers(top_layers: int, num_layers: int) -> None:
    """Refuse more layers than there are: for a run and its plan."""
    if top_layers > num_layers:
        raise ConfigError(
            f"top_layers is {top_layers} and the model has {num_layers} decoder layers; expected "
            "fewer, or leave --top-layers out to train them all."
        )
