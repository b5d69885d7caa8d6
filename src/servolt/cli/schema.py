"""`servolt schema NAME`."""

import importlib
from typing import Any

import click

from servolt.cli.output import Output, output_options
from servolt.document import Document

__all__ = ["DOCUMENTS", "command", "json_schema"]

DOCUMENTS = {
    "accelerator": "servolt.gpu:Accelerator",
    "answer": "servolt.plan.search_answers:Answer",
    "calibration": "servolt.plan.calibration:Calibration",
    "command": "servolt.command:Command",
    "comparison": "servolt.compare:Comparison",
    "deployment": "servolt.deployment:Deployment",
    "explanation": "servolt.plan.explanation:Explanation",
    "known": "servolt.plan.known:KnownDeployments",
    "measurement": "servolt.measurement:Measurement",
    "metrics": "servolt.metrics:Metrics",
    "model": "servolt.model:Model",
    "plan": "servolt.plan:Plan",
    "plan_comparison": "servolt.plan.against:PlanComparison",
    "search": "servolt.plan.search:Search",
    "slo": "servolt.workload:Slo",
    "workload": "servolt.workload:Workload",
}


def json_schema(name: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of a document."""
    module, _, attribute = DOCUMENTS[name].partition(":")
    document: type[Document] = getattr(importlib.import_module(module), attribute)
    schema = document.model_json_schema()
    # What the command line prints says which version printed it; a file that a person writes need not.
    schema["properties"].setdefault("tool_version", {"type": "string"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@click.command()
@click.argument("name", metavar="[NAME]", type=click.Choice(sorted(DOCUMENTS)), required=False)
@output_options
def command(name: str | None, out: Output) -> None:
    """Print the JSON Schema of a document; without NAME, list the documents."""
    if name is not None:
        out.json_only(json_schema(name))
        return
    rows = [{"name": one, "schema": f"servolt.{one}/1"} for one in sorted(DOCUMENTS)]

    def human() -> str:
        return "\n".join(f"{row['name']:12} {row['schema']}" for row in rows)

    out.items("servolt.schemas/1", rows, ids=[row["name"] for row in rows], human=human)
