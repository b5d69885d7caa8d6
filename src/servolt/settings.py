"""Settings and folders, and where each value came from.

Precedence: flag > SERVOLT_* > project file servolt.toml > user file config.toml > OLLAMA_* > default.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servolt.errors import InvalidInputError
from servolt.units import parse_count, parse_duration

__all__ = ["SETTINGS", "Folders", "Found", "Setting", "folders", "resolve", "resolve_all"]


@dataclass(frozen=True)
class Folders:
    """Weights of others stay where they are; everything of ours is in these four."""

    config: Path
    data: Path
    cache: Path
    state: Path

    @property
    def measurements(self) -> Path:
        return self.data / "measurements"

    @property
    def calibration(self) -> Path:
        return self.data / "calibration.json"

    @property
    def accelerator(self) -> Path:
        """What `doctor --calibrate` measured of this machine."""
        return self.data / "accelerator.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def servers(self) -> Path:
        """One file for each server that runs: address and process id."""
        return self.state / "servers"


def folders(environ: Mapping[str, str] = os.environ) -> Folders:
    """SERVOLT_HOME moves all four."""
    home = environ.get("SERVOLT_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Folders(root / "config", root / "data", root / "cache", root / "state")
    import platformdirs

    dirs = platformdirs.PlatformDirs("servolt", appauthor=False)
    return Folders(dirs.user_config_path, dirs.user_data_path, dirs.user_cache_path, dirs.user_state_path)


@dataclass(frozen=True)
class Setting:
    """`read` turns text into the value and raises ValueError with a text that says what is wrong."""

    name: str
    read: Callable[[str], Any]
    default: Any
    sentence: str
    ollama: str | None = None


def _host(text: str) -> str:
    """Ollama's forms: HOST, HOST:PORT, :PORT, http://HOST:PORT."""
    bare = text.strip().removeprefix("http://").rstrip("/")
    head, colon, port = bare.rpartition(":")
    if colon and not port.endswith("]"):
        if not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{text!r} has no port between 0 and 65535")
        return f"{head or '127.0.0.1'}:{port}"
    return f"{bare or '127.0.0.1'}:11434"


def _keep_alive(text: str) -> float:
    return parse_duration(text)


def _positive(text: str) -> int:
    number = parse_count(text)
    if number < 1:
        raise ValueError(f"{text!r} is not above 0")
    return number


def _truth(text: str) -> bool:
    found = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is neither true nor false")
    return found


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("host", _host, None, "Address of the gateway, HOST:PORT.", "OLLAMA_HOST"),
        Setting("model", str, "guide", "Model when none is named."),
        Setting("engine", str, "llamacpp", "Engine when none is named."),
        Setting(
            "keep_alive",
            _keep_alive,
            300.0,
            "Seconds an idle model stays loaded; negative is for ever.",
            "OLLAMA_KEEP_ALIVE",
        ),
        Setting("max_queue", _positive, 512, "Requests that may wait before new ones are refused.", "OLLAMA_MAX_QUEUE"),
        Setting("max_num_seqs", _positive, None, "Sequences that run at the same time.", "OLLAMA_NUM_PARALLEL"),
        Setting("max_model_len", _positive, None, "Context of one sequence, tokens.", "OLLAMA_CONTEXT_LENGTH"),
        Setting(
            "load_timeout", parse_duration, 300.0, "Seconds an engine may take to become ready.", "OLLAMA_LOAD_TIMEOUT"
        ),
        Setting(
            "origins", str, "", "Further web origins that may call the gateway, comma-separated.", "OLLAMA_ORIGINS"
        ),
        Setting("plan_paths", _truth, False, "Whether requests for plans may name files of this machine."),
        Setting("webhook_hosts", str, "", "Hosts that the gateway tells of finished jobs; without any, this machine."),
        Setting("models", str, None, "A further folder in which GGUF files are found by name."),
    )
}


@dataclass(frozen=True)
class Found:
    """A setting's value and where it came from."""

    name: str
    value: Any
    origin: str


def resolve(name: str, flag: Any = None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Found:
    """Raises InvalidInputError naming the place whose value can't be used."""
    if flag is not None:
        return Found(name, flag, "flag")
    setting = SETTINGS[name]
    for origin, text in _places(setting, environ, cwd or Path.cwd()):
        if text is not None and text != "":
            try:
                return Found(name, setting.read(_written(text)), origin)
            except ValueError as error:
                raise InvalidInputError(f"{origin}: {error}.", f"Correct {name} there.") from error
    return Found(name, setting.default, "default")


def _written(value: Any) -> str:
    """TOML knows numbers, truth values and lists. Raises ValueError for what is no setting's value."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is neither text nor a number")
    return str(value)


def resolve_all(*, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> list[Found]:
    return [resolve(name, environ=environ, cwd=cwd) for name in SETTINGS]


def _places(setting: Setting, environ: Mapping[str, str], cwd: Path) -> list[tuple[str, Any]]:
    variable = f"SERVOLT_{setting.name.upper()}"
    places: list[tuple[str, Any]] = [(variable, environ.get(variable))]
    files = (_project_file(cwd), folders(environ).config / "config.toml")
    places += [(str(path), _read(path).get(setting.name)) for path in files if path is not None and path.is_file()]
    if setting.ollama:
        places.append((setting.ollama, environ.get(setting.ollama)))
    return places


def _project_file(cwd: Path) -> Path | None:
    return next(
        (folder / "servolt.toml" for folder in (cwd, *cwd.parents) if (folder / "servolt.toml").is_file()), None
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}.", "Correct the file or move it away.") from error
    unknown = sorted(set(content) - set(SETTINGS))
    if unknown:
        raise InvalidInputError(
            f"{path} sets {', '.join(unknown)}, which is no setting.", "`servolt config` lists them."
        )
    return content
