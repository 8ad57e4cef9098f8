"""Precision and recall of personal data per entity, on 2,000 generated lines.

    python -m benchmarks.data_personal

Cases and patterns have one author: a form of number that neither knows is missed by both. Writes
apps/data/rules/personal_quality.json, which the cleaning report shows.
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

from apps.data.rules.personal.mask import mask
from tests.data.rules import personal_cases


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    entities = personal_cases.measured(mask)
    print(f"{'entity':12} {'cases':>6} {'precision':>10} {'recall':>7}")
    for name, row in entities.items():
        print(f"{name:12} {row['cases']:6.0f} {row['precision']:10.3f} {row['recall']:7.3f}")
    path = Path(str(files("apps.data.rules") / "personal_quality.json"))
    path.write_text(json.dumps({"lines": 2000, "entities": entities}, indent=2) + "\n")


if __name__ == "__main__":
    main()
