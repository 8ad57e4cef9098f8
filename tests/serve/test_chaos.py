"""Five minutes of it: ten replicas, three gateways, a proxy, two machines, the controller."""

import pytest

from tests.serve.test_chaos_short import outcome_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_no_client_sees_any_of_it() -> None:
    replicas, gateways = ["replica"] * 10, ["gateway"] * 3
    outcome = outcome_of(
        *replicas[:5], "proxy", *gateways, "node", *replicas[5:], "controller", "drain",
        timeout_s=2300,
    )  # fmt: skip
    assert outcome["requests"] > 500
    assert (outcome["failed"], outcome["different"], outcome["unexcused"]) == ([], [], 0)
