"""Forward pass of LLaMA-family models over a slot-wise KV cache, in plain torch.

- One pass takes decode rows (one token of each running request) and prefill rows (chunks of new
  prompts) together: the linear layers see one matrix.
- q, k, v are one matrix, RoPE is one complex multiply (rows of q and k are permuted at load so that
  a rotated pair is adjacent), softmax's 1/sqrt(D) is folded into q.
- On a CPU every number a token gets is independent of what else is in the batch, how the prompt was
  chunked, and whether a token was prefilled or decoded, to the last bit. That needs three things:
  linear layers through oneDNN with packed weights (MKL's sgemm changes its order of summation with
  the number of rows; oneDNN's does not, and is faster: 90 against 141 us for 32x256x768), attention
  products with at least 4 rows (MKL takes another kernel below), and sums over keys in chunks of
  CHUNK that are added in order (so that padding adds exact zeros).
- The cache is laid out chunk by chunk, so that one product reads a chunk of all slots in one piece.
  Decoding handles several key heads in one product, with a block-diagonal matrix of queries: its
  zeros change no sum, and it takes half the time of products too small for MKL.

Shapes: R rows, H query heads, K key heads, D head size, S slots, C key chunks, B blocks of heads,
I key heads in a block, G = H / K queries per key head, W = I * D; in a product, N matrices, M rows.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from apps.common.errors import ConfigError, NotFoundError

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
CHUNK = 128
"""Keys that one product reads."""
_MAP_NORESERVE = 0x4000  # Linux; the mmap module names it from Python 3.13 on
MIN_ROWS = 4


@dataclass(slots=True)
class Rows:
    """One forward pass: row i < num_decode is slot i's next token, then come the prompt chunks."""

    token_ids: list[int]
    positions: list[int]
    num_decode: int
    chunks: list[tuple[int, int, int]]
    """(slot, position of the chunk's first token, tokens)"""
    logit_rows: list[int]


class KVCache:
    """Keys and values of `num_slots` requests; pages are committed when first written."""

    def __init__(self, model: "Llama", num_slots: int, num_tokens: int) -> None:
        self.num_slots = num_slots
        group = model.num_heads // model.num_kv_heads
        self.block_heads = _block_heads(model.num_kv_heads, group)
        self.num_blocks = model.num_kv_heads // self.block_heads
        width = self.block_heads * model.head_dim
        num_chunks = num_chunks_of(num_tokens)
        shape = (model.num_layers, 2, num_chunks, num_slots, self.num_blocks, CHUNK, width)
        # Zeros, because a masked key's probability 0 times garbage that is NaN would be NaN.
        is_cpu = model.device == "cpu"
        self.data = _lazy_zeros(shape) if is_cpu else torch.zeros(shape, device=model.device)

    def move(self, source: int, target: int, num_tokens: int) -> None:
        num_chunks = num_chunks_of(num_tokens)
        self.data[:, :, :num_chunks, target] = self.data[:, :, :num_chunks, source]

    def swap(self, one: int, two: int, num_tokens: int) -> None:
        num_chunks = num_chunks_of(num_tokens)
        kept = self.data[:, :, :num_chunks, one].clone()
        self.move(two, one, num_tokens)
        self.data[:, :, :num_chunks, two] = kept

    def clear(self, slot: int, num_tokens: int) -> None:
        self.data[:, :, : num_chunks_of(num_tokens), slot] = 0

    def tokens(self, slot: int, start: int, num_tokens: int) -> Tensor:
        """View of some tokens inside one chunk: [layers, 2, B, num_tokens, W]."""
        offset = start % CHUNK
        return self.data[:, :, start // CHUNK, slot, :, offset : offset + num_tokens]


class Linear:
    """y = x W^T + b, W packed for oneDNN on a CPU, and what comes after it in the same call."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.packed = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        self.bias = bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return _onednn_linear(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)

    def silu(self, x: Tensor) -> Tensor:
        if self.packed:
            return _onednn_linear(x, self.weight, self.bias, "swish", [], "")
        return F.silu(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        if self.packed:
            return _onednn_linear_binary(x, other, self.weight, self.bias, "mul")
        return self(x) * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        if self.packed:
            return _onednn_linear_binary(x, other, self.weight, self.bias, "add")
        return self(x) + other


_onednn_linear = torch.ops.mkldnn._linear_pointwise.default
_onednn_linear_binary = torch.ops.mkldnn._linear_pointwise.binary


class Layer:
    """One layer's matrices; the weights of the norms before them are multiplied in."""

    def __init__(self, weights: "Weights", index: int, model: "Llama") -> None:
        def take(name: str) -> Tensor:
            return weights.take(f"model.layers.{index}.{name}")

        def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
            return Linear(weight.to(model.dtype), None if bias is None else bias.to(model.dtype))

        d = model.head_dim
        names = [f"self_attn.{p}_proj" for p in "qkv"]
        norm = take("input_layernorm.weight")
        q, k, v = (take(f"{name}.weight") * norm for name in names)
        self.q_norm = self.k_norm = None
        scale = d**-0.5
        if weights.has(f"model.layers.{index}.self_attn.q_norm.weight"):
            self.q_norm = _pair_rows(take("self_attn.q_norm.weight"), d) * scale
            self.k_norm = _pair_rows(take("self_attn.k_norm.weight"), d)
            scale = 1.0
        bias = None
        if weights.has(f"model.layers.{index}.self_attn.q_proj.bias"):
            bq, bk, bv = (take(f"{name}.bias") for name in names)
            bias = torch.cat([_pair_rows(bq, d) * scale, _pair_rows(bk, d), bv])
        self.qkv = linear(torch.cat([_pair_rows(q, d) * scale, _pair_rows(k, d), v]), bias)
        self.out = linear(take("self_attn.o_proj.weight"))
        norm = take("post_attention_layernorm.weight")
        self.gate = linear(take("mlp.gate_proj.weight") * norm)
        self.up = linear(take("mlp.up_proj.weight") * norm)
        self.down = linear(take("mlp.down_proj.weight"))


class Llama:
    """A model folder, loaded for inference."""

    def __init__(self, folder: str | Path, *, device: str, dtype: torch.dtype) -> None:
        config = read_config(folder)
        self.device, self.dtype = device, dtype
        self.num_layers = config.num_hidden_layers
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = getattr(config, "num_key_value_heads", None) or self.num_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.num_heads
        self.vocab_size = config.vocab_size
        self.root_eps = torch.tensor(config.rms_norm_eps**0.5, device=device)
        self.rotation = _rotation(config).to(device)
        weights = Weights(Path(folder), device)
        embedding = weights.take("model.embed_tokens.weight")
        self.embedding = embedding.to(dtype)
        self.layers = [Layer(weights, i, self) for i in range(self.num_layers)]
        tied = config.tie_word_embeddings or not weights.has("lm_head.weight")
        head = embedding if tied else weights.take("lm_head.weight")
        self.head = Linear((head * weights.take("model.norm.weight")).to(dtype))

    def new_cache(self, num_slots: int, num_tokens: int) -> KVCache:
        return KVCache(self, num_slots, num_tokens)

    @torch.inference_mode()
    def forward(self, rows: Rows, cache: KVCache) -> Tensor:
        """Float32 logits [len(rows.logit_rows), vocabulary]; writes the rows' keys and values."""
        views = _Views(self, rows, cache)
        x = self.embedding[views.token_ids]
        for index, layer in enumerate(self.layers):
            x = layer.out.plus(self._attention(layer, index, self._norm(x), views), x)
            y = self._norm(x)
            x = layer.down.plus(layer.up.times(y, layer.gate.silu(y)), x)
        if len(rows.logit_rows) < len(rows.token_ids):
            x = x[torch.tensor(rows.logit_rows, dtype=torch.long, device=x.device)]
        return self.head(self._norm(x)).float()

    def _norm(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps), in three operations."""
        size = x.shape[-1]
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        length = torch.hypot(length * size**-0.5, self.root_eps)
        return (x / length).to(x.dtype)

    def _attention(self, layer: Layer, index: int, x: Tensor, views: "_Views") -> Tensor:
        h, k, d = self.num_heads, self.num_kv_heads, self.head_dim
        qkv = layer.qkv(x).float().view(-1, h + 2 * k, d)
        qk = qkv[:, : h + k]
        if layer.q_norm is not None:
            q, k_rows = self._norm(qk[:, :h]), self._norm(qk[:, h:])
            qk = torch.cat([q * layer.q_norm, k_rows * layer.k_norm], dim=1)
        qk = torch.view_as_complex(qk.reshape(-1, h + k, d // 2, 2)) * views.rotation
        qk = torch.view_as_real(qk).reshape(-1, h + k, d)
        kv = views.cache.data[index]
        width = kv.shape[-1]
        kv[0].view(-1, width).index_copy_(0, views.write_at, qk[:, h:].reshape(-1, width))
        kv[1].view(-1, width).index_copy_(0, views.write_at, qkv[:, h + k :].reshape(-1, width))
        return views.attend(qk[:, :h], kv).to(x.dtype)


class _Views:
    """Index tensors of one pass, shared by all layers."""

    def __init__(self, model: Llama, rows: Rows, cache: KVCache) -> None:
        device, blocks = model.device, cache.num_blocks
        self.rows, self.cache = rows, cache
        self.group = model.num_heads // model.num_kv_heads
        self.token_ids = torch.tensor(rows.token_ids, device=device)
        positions = torch.tensor(rows.positions, device=device)
        self.rotation = model.rotation[positions].unsqueeze(1)
        slots = list(range(rows.num_decode))
        for slot, _, length in rows.chunks:
            slots += [slot] * length
        slot_at = torch.tensor(slots, device=device) + positions // CHUNK * cache.num_slots
        block_at = slot_at[:, None] * blocks + torch.arange(blocks, device=device)
        self.write_at = (block_at * CHUNK + positions[:, None] % CHUNK).view(-1)
        if rows.num_decode:
            self._plan_decode(positions[: rows.num_decode])
        self.chunk_biases = [self._chunk_bias(start, n, device) for _, start, n in rows.chunks]

    def _plan_decode(self, positions_S: Tensor) -> None:
        """Bias [C, N, 1, CHUNK], and for each chunk the slots up to the last that reaches it."""
        chunks = [p // CHUNK for p in self.rows.positions[: self.rows.num_decode]]
        self.num_slots = [
            max(slot for slot, last in enumerate(chunks) if last >= c) + 1
            for c in range(max(chunks) + 1)
        ]
        key_at = torch.arange(len(self.num_slots) * CHUNK, device=positions_S.device)
        bias = _bias(key_at.view(-1, 1, CHUNK) > positions_S[:, None])
        self.decode_bias = bias.repeat_interleave(self.cache.num_blocks, 1).unsqueeze(2)

    def _chunk_bias(self, start: int, length: int, device: str) -> Tensor:
        """Causal bias [C, 1, G * length, CHUNK]."""
        key_at = torch.arange(num_chunks_of(start + length) * CHUNK, device=device)
        query_at = torch.arange(start, start + length, device=device).repeat(self.group)
        return _bias(key_at.view(-1, 1, 1, CHUNK) > query_at[:, None])

    def attend(self, q_RHD: Tensor, kv: Tensor) -> Tensor:
        """Attention output [R, H * D]; `kv` is a layer's cache [2, C, S, B, CHUNK, W]."""
        outputs, n = [], self.rows.num_decode
        if n:
            outputs.append(self._attend_decode(q_RHD[:n], kv))
        for (slot, _, length), bias in zip(self.rows.chunks, self.chunk_biases, strict=True):
            outputs.append(self._attend_chunk(q_RHD[n : n + length], kv[:, :, slot], bias))
            n += length
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _attend_decode(self, q_SHD: Tensor, kv: Tensor) -> Tensor:
        keys, values = (
            [side[c, :num].flatten(0, 1) for c, num in enumerate(self.num_slots)] for side in kv
        )
        n, d, i, g = len(q_SHD), q_SHD.shape[-1], self.cache.block_heads, self.group
        q = q_SHD.new_zeros((n, self.cache.num_blocks, i, g, i, d))
        q.diagonal(dim1=2, dim2=4).copy_(q_SHD.view(n, -1, i, g, d).permute(0, 1, 3, 4, 2))
        out = _attention(q.view(-1, i * g, i * d), keys, values, self.decode_bias)
        out = out.view(n, -1, i, g, i, d).diagonal(dim1=2, dim2=4)
        return out.permute(0, 1, 4, 2, 3).reshape(n, -1)

    def _attend_chunk(self, q_THD: Tensor, kv: Tensor, bias: Tensor) -> Tensor:
        """A prompt's rows make products large enough head by head."""
        length, d, i, g = len(q_THD), q_THD.shape[-1], self.cache.block_heads, self.group
        keys, values = (
            [
                s.view(-1, CHUNK, i, d).transpose(1, 2).reshape(-1, CHUNK, d)
                for s in side[: len(bias)]
            ]
            for side in kv
        )
        q = q_THD.view(length, -1, g, d).permute(1, 2, 0, 3).reshape(-1, g * length, d)
        out = _attention(q, keys, values, bias).view(-1, g, length, d)
        return out.permute(2, 0, 1, 3).reshape(length, -1)


def _attention(q_NMD: Tensor, keys: list[Tensor], values: list[Tensor], bias: Tensor) -> Tensor:
    """softmax(q k^T + bias) v with sums over keys chunk by chunk in order (module docstring).

    keys[c] and values[c] are [n, CHUNK, D] with n <= N; rows from n on have no key in chunk c.
    """
    n, m = q_NMD.shape[:2]
    q = F.pad(q_NMD, (0, 0, 0, MIN_ROWS - m)) if m < MIN_ROWS else q_NMD
    scores = q.new_empty((len(keys), n, q.shape[1], CHUNK))
    for chunk, k in zip(scores, keys, strict=True):
        torch.bmm(q[: len(k)], k.transpose(1, 2), out=chunk[: len(k)])
        chunk[len(k) :] = 0.0
    p = scores[:, :, :m]
    p += bias
    p -= p.amax((0, 3), keepdim=True)
    p.exp_()
    total = _sum_in_order(p.sum(3))
    out = torch.bmm(scores[0], values[0])
    for chunk, v in zip(scores[1:], values[1:], strict=True):
        out[: len(v)].baddbmm_(chunk[: len(v)], v)
    return out[:, :m] / total.unsqueeze(-1)


def _block_heads(num_kv_heads: int, group: int) -> int:
    """Fewest key heads whose queries make MIN_ROWS rows."""
    fitting = [i for i in range(1, num_kv_heads + 1) if num_kv_heads % i == 0]
    return next((i for i in fitting if i * group >= MIN_ROWS), num_kv_heads)


def _sum_in_order(parts: Tensor) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def num_chunks_of(num_tokens: int) -> int:
    return -(-num_tokens // CHUNK)


def _bias(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)


def _pair_rows(rows: Tensor, head_dim: int) -> Tensor:
    """Rows of a q or k projection with i and i + D/2 of every head made neighbours."""
    heads = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def _rotation(config: PretrainedConfig) -> Tensor:
    """RoPE (https://arxiv.org/abs/2104.09864) as unit complex numbers [position, D / 2]."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind == "default":
        head_dim = getattr(config, "head_dim", None)
        head_dim = head_dim or config.hidden_size // config.num_attention_heads
        exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        frequency, factor = 1.0 / rope.get("rope_theta", 10000.0) ** exponent, 1.0
    elif kind in ("linear", "llama3"):
        frequency, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    else:
        raise ConfigError(
            f"rope scaling {kind!r} is not supported by the torch engine; it knows default, "
            "linear and llama3: serve this model with engine: vllm"
        )
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), frequency)
    return torch.polar(torch.full_like(angles, factor), angles)


class Weights:
    """Tensors of a model folder by name, read when taken, as float32."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.files = dict(_tensor_files(folder))

    def has(self, name: str) -> bool:
        return name in self.files

    def take(self, name: str) -> Tensor:
        with safe_open(self.files[name], framework="pt", device=self.device) as file:
            return file.get_tensor(name).float()


def _tensor_files(folder: Path) -> Iterator[tuple[str, Path]]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        for name, file in json.loads(index.read_text())["weight_map"].items():
            yield name, folder / file
        return
    file = folder / "model.safetensors"
    if not file.exists():
        raise NotFoundError(
            f"{folder} has no model.safetensors; save the model with "
            "save_pretrained(safe_serialization=True)"
        )
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (a file handle, not a dict)
            yield name, file


def read_config(folder: str | Path) -> PretrainedConfig:
    if not (Path(folder) / "config.json").exists():
        raise NotFoundError(f"{folder} has no config.json; give a Hugging Face model folder")
    config = AutoConfig.from_pretrained(folder)
    architecture = (config.architectures or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"the torch engine cannot run {architecture}; it knows {', '.join(ARCHITECTURES)}: "
            "serve this model with engine: vllm"
        )
    return config


def _lazy_zeros(shape: tuple[int, ...]) -> Tensor:
    """Private memory, which the kernel may back with huge pages; swap is not reserved for it."""
    num_bytes = 4 * torch.Size(shape).numel()
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    return torch.frombuffer(pages, dtype=torch.float32).view(shape)
