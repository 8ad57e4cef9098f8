import pytest

from tests.serve.engine.llamas import save_llama


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """Two queries per key head."""
    return save_llama(tmp_path_factory, num_heads=4, num_key_heads=2)


@pytest.fixture(
    scope="session",
    params=[(4, 4, 16), (8, 8, 16), (6, 2, 16), (4, 1, 16), (3, 3, 16), (8, 1, 16), (5, 5, 12)],
    ids=str,
)
def llama_of_any_shape(request, tmp_path_factory) -> str:
    """Of heads, key heads and numbers in a head."""
    heads, key_heads, size = request.param
    return save_llama(tmp_path_factory, num_heads=heads, num_key_heads=key_heads, head_dim=size)
