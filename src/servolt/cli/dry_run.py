"""`servolt serve --dry-run`: what would be started, and nothing is."""

import json
from typing import Any

from servolt import __version__, registry
from servolt.cli.formats import is_json
from servolt.cli.output import Output
from servolt.command import Command
from servolt.serve.catalogue import Catalogue
from servolt.units import format_duration

__all__ = ["show_dry_run"]


def show_dry_run(out: Output, catalogue: Catalogue, url: str | None, keep_alive_s: float) -> None:
    """For people a script of the commands; as JSON one document. The URL is None where any free port will do."""
    if is_json(out):
        out.text(json.dumps(_document(catalogue, url, keep_alive_s), ensure_ascii=False))
    else:
        out.text("\n".join(_script(catalogue, url, keep_alive_s)))


def _script(catalogue: Catalogue, url: str | None, keep_alive_s: float) -> list[str]:
    launcher = registry.launcher("process")
    lines = [f"# gateway: {url or 'any free port'}, {_kept(keep_alive_s)}"]
    for offer in catalogue:
        command = registry.engine(offer.deployment.engine).command(offer.deployment, offer.model)
        lines += [f"# {', '.join(offer.names)}", launcher.render(command)]
    return lines


def _document(catalogue: Catalogue, url: str | None, keep_alive_s: float) -> dict[str, Any]:
    models = []
    for offer in catalogue:
        command = registry.engine(offer.deployment.engine).command(offer.deployment, offer.model)
        models.append(
            {
                "names": offer.names,
                "deployment": offer.deployment.model_dump(mode="json", exclude_none=True),
                "deployment_digest": offer.digest,
                "argv": command.argv,
                "environment": _variables(command),
            }
        )
    return {
        "schema": "servolt.dry_run/1",
        "tool_version": __version__,
        "url": url,
        "keep_alive_s": keep_alive_s,
        "models": models,
    }


def _variables(command: Command) -> list[str]:
    """Names only: the engine's key is made when it starts."""
    secret = [command.api_key_variable] if command.api_key_variable else []
    return sorted([*command.env, *secret])


def _kept(keep_alive_s: float) -> str:
    if keep_alive_s < 0:
        return "models stay loaded"
    return f"a model is unloaded after {format_duration(keep_alive_s)} without a request"
