from pathlib import Path

import pytest

from servolt import settings
from servolt.errors import StorageError
from servolt.host.facts import cpu_accelerator
from servolt.plan import Calibration
from servolt.settings import Folders
from servolt.study.keep import read_accelerator, read_calibration, write_document


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return settings.folders({"SERVOLT_HOME": str(tmp_path / "home")})


def test_what_is_written_is_read_back(folders: Folders) -> None:
    measured = cpu_accelerator(source="a test").model_copy(update={"flops_per_s": {"f16": 4e10}})
    write_document(folders.accelerator, measured)
    write_document(folders.calibration, Calibration())
    assert read_calibration(folders) == Calibration()
    assert read_accelerator(folders).flops_per_s == {"f16": 4e10}


def test_speeds_of_another_machine_do_not_count(folders: Folders) -> None:
    speeds = {"name": "another", "bandwidth_bytes_per_s": 1e10}
    other = cpu_accelerator(source="a test").model_copy(update=speeds)
    write_document(folders.accelerator, other)
    assert read_accelerator(folders).bandwidth_bytes_per_s is None


def test_a_place_that_can_not_be_written_is_an_error_that_leaves_nothing(folders: Folders) -> None:
    folders.data.parent.mkdir(parents=True)
    folders.data.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="SERVOLT_HOME"):
        write_document(folders.calibration, Calibration())
    assert folders.data.read_text() == "a file where the folder should be"


def test_a_failed_write_leaves_the_old_file_whole_and_no_part_of_the_new(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_document(folders.calibration, Calibration())
    before = folders.calibration.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_document(folders.calibration, Calibration())
    assert folders.calibration.read_bytes() == before
    assert [path.name for path in folders.data.iterdir()] == [folders.calibration.name]


def test_a_document_that_is_damaged_is_named(folders: Folders) -> None:
    folders.calibration.parent.mkdir(parents=True)
    folders.calibration.write_text('{"schema": "servolt.calibration/9"}')
    with pytest.raises(StorageError, match=r"calibration\.json.*doctor --calibrate"):
        read_calibration(folders)
