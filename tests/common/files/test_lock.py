import subprocess
import sys
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.common.files.lock import alone_in

_HOLD = """
import sys, time
from apps.common.files.lock import alone_in
with alone_in(sys.argv[1]):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("place", ["{}/run", "s3://bucket/run"])
def test_a_second_command_is_refused_until_the_first_is_gone(place: str, tmp_path: Path) -> None:
    uri = place.format(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _HOLD, uri], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
        (tmp_path / "link").symlink_to(tmp_path)
        for same in (uri, f"{uri}/", uri.replace(f"{tmp_path}", f"{tmp_path}/link")):
            with pytest.raises(InputError, match="Another command is at work on"), alone_in(same):
                pytest.fail("two are in")
        with alone_in(f"{uri}-other"):
            pass
        holder.kill()
    with alone_in(uri):
        pass
    assert not (tmp_path / "run").exists()
