from pathlib import Path

import pytest

from tests.common.command.slow_ray import raylet, start


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    process = start(raylet(tmp_path, "exit 1"), wait_s=5)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Ray did not start, twice: " in err and "Traceback" not in err
