"""judgments/manifest-<protocol>.json: what made these judgments."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from apps.common.files import lineage, storage
from apps.eval.calls import journal
from apps.eval.config import JudgeConfig
from apps.eval.folder import questions_uri
from apps.eval.judging.call import Call, digest
from apps.eval.judging.plan import Plan
from apps.eval.judging.prices import Price


def write_manifest(config: JudgeConfig, plan: Plan, prices: Mapping[str, Price | None]) -> None:
    digests = {"questions": storage.digest_file(questions_uri(config.dir))}
    record = lineage.collect(
        inputs=digests,
        config=config,
        protocol=plan.protocol,
        judges=list(config.judge_names),
        judge_snapshots=_snapshots(config.dir, plan.protocol),
        prompts_digest=prompts_digest(plan.calls),
        prompts="Cria's own, hardened" if config.prompt_file is None else config.prompt_file,
        without_reference=list(plan.without_reference),
        prices={name: asdict(price) if price else None for name, price in prices.items()},
    )
    name = f"manifest-{plan.protocol}.json"
    storage.write_json(storage.join(journal.judgments_dir(config.dir), name), record)


def prompts_digest(calls: Sequence[Call]) -> str:
    """Of all prompts, in the plan's order."""
    return digest([[call.messages, call.parameters] for call in calls])


def _snapshots(directory: str, protocol: str) -> dict[str, list[str]]:
    """Model names and fingerprints that the endpoint itself reported, per judge."""
    reported: dict[str, set[str]] = {}
    for record in journal.read_raw(directory):
        if record["protocol"] == protocol:
            name = f"{record['endpoint_model']} {record.get('fingerprint') or ''}".strip()
            reported.setdefault(record["judge"], set()).add(name)
    return {judge: sorted(names) for judge, names in sorted(reported.items())}
