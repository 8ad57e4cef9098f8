import pytest

from tests.serve.engine.llamas import save_llama


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """Two queries per key head."""
    return save_llama(tmp_path_factory, num_heads=4, num_key_heads=2)


@pytest.fixture(scope="session", params=[(4, 4), (8, 8), (6, 2), (4, 1), (3, 3)])
def llama_of_any_shape(request, tmp_path_factory) -> str:
    num_heads, num_key_heads = request.param
    return save_llama(tmp_path_factory, num_heads=num_heads, num_key_heads=num_key_heads)
