"""Models on this machine: files, folders and configs by path; GGUF files by name in the setting `models`."""

from pathlib import Path

from servolt import settings
from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.model import Model
from servolt.model.gguf import read_gguf_header
from servolt.sources.folders import read_config, read_folder
from servolt.sources.names import is_hub_id

__all__ = ["Local"]


class Local:
    """Files stay where they are."""

    def names(self) -> list[str]:
        return [path.stem for path in _files()]

    def find(self, deployment: Deployment) -> Model | None:
        name = deployment.model
        if is_hub_id(name) and not Path(name).exists():
            return None
        if name.endswith((".gguf", ".json")) or "/" in name or "\\" in name or name.startswith("~"):
            return _by_path(deployment)
        path = _by_name(name, deployment.quantization)
        return None if path is None else read_gguf_header(path)


def _by_path(deployment: Deployment) -> Model:
    path = Path(deployment.model).expanduser()
    if path.is_dir():
        return read_folder(path, deployment)
    if path.suffix == ".json" and _is_file(path):
        return read_config(path, deployment)
    if not _is_file(path):
        what = "is no regular file" if path.exists() else "is not there"
        raise ModelNotFoundError(
            f"{path} {what}.",
            "Give the path of a GGUF file, of a folder with a config.json, or a name that `servolt list` shows.",
        )
    model = read_gguf_header(path)
    if deployment.quantization not in (None, model.quantization):
        raise ModelNotFoundError(
            f"{path} holds {model.quantization}, and {deployment.quantization} is asked.",
            "Leave the quantization out, or name the file that has it.",
        )
    return model


def _by_name(name: str, quantization: str | None) -> Path | None:
    """NAME.gguf, or the one file NAME-QUANTIZATION.gguf, in whatever case. Raises ModelNotFoundError if many fit."""
    found = [path for path in _files() if _fits(path.stem.lower(), name.lower(), quantization)]
    alike = [path for path in found if path.stem.lower() == name.lower()]
    exact = [path for path in alike if path.stem == name] or alike
    if len(found) > 1 and len(exact) != 1:
        raise ModelNotFoundError(
            f"{name} may be {', '.join(path.stem for path in found)}.", "Give the whole name, as `servolt list` has it."
        )
    return next(iter(exact or found), None)


def _fits(stem: str, name: str, quantization: str | None) -> bool:
    if quantization is None:
        return stem == name or (stem.startswith(name) and stem[len(name)] in "-." and "-" not in stem[len(name) + 1 :])
    return stem in {f"{name}{between}{quantization.lower()}" for between in "-."}


def _files() -> list[Path]:
    """Regular files only: opening a pipe waits for its writer, and a device has no end."""
    folder = settings.resolve("models").value
    return [] if folder is None else sorted(filter(_is_file, Path(folder).expanduser().glob("*.gguf")))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as in a folder that may be listed but not entered
        return False
