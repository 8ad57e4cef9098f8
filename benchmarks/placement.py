"""Placements on Azure's trace: requests within the SLO, against even replicas and AlpaServe.

    CRIA_TEST_DATA=... python -m benchmarks.placement --seconds 20

The trace is split among models by a power law (exponent 1; every other model a 13B, else 7B), and
comes as fast as --times says. The SLO is 2 s to the first token and 80 ms between two. Speeds are
computed ones (apps/serve/place/speeds.yaml). With --held-out the placement is made for the first
half of the trace and judged by the second.
"""

import argparse
import os
import time
from pathlib import Path

from apps.serve.place.arrivals import power_law, read_azure, split
from apps.serve.place.placement import Cluster, Model
from apps.serve.place.search import Problem, alpaserve, search
from apps.serve.place.simulator import Slo
from apps.serve.place.speed import shape

CASES = ((8, 16), (32, 16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=float, nargs="+", default=[2.0, 4.0, 6.0])
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    folder = Path(os.environ["CRIA_TEST_DATA"]) / "azure-llm-2023"
    trace = read_azure(str(folder / "AzureLLMInferenceTrace_conv.csv"))
    print("| models | GPUs | times | even | greedy | ours | over even | CPU s | simulations |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count, num_gpus in CASES:
        names = ["llama-13b" if number % 2 == 0 else "llama-7b" for number in range(count)]
        models = [
            Model(name=f"m{number}", path="p", shape=shape(name, "A100-80GB"))
            for number, name in enumerate(names)
        ]
        for times in arguments.times:
            requests = split(trace, power_law(count)).faster(times)
            end_s = float(requests.at_s[-1])
            seen, judged = requests, requests
            if arguments.held_out:
                seen, judged = requests.between(0, end_s / 2), requests.between(end_s / 2, end_s)
            sample, whole, by = (
                Problem(
                    models=models,
                    cluster=Cluster(num_gpus=num_gpus, memory_bytes=80e9),
                    arrivals=some,
                    slo=Slo(ttft_s=2.0, tpot_s=0.08),
                )
                for some in (seen.busiest(2500), seen, judged)
            )
            begun_s = time.process_time()
            found = search(sample, whole, arguments.seconds)
            used_s = time.process_time() - begun_s
            even, greedy, best = (
                by.score(groups).attained / judged.num_requests
                for groups in (found.even, alpaserve(sample), found.best)  # the greedy is not cut
            )
            print(
                f"| {count} | {num_gpus} | {times:g} | {even:.1%} | {greedy:.1%} | {best:.1%} | "
                f"{best / even:.2f} | {used_s:.0f} | {sample.simulations} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
