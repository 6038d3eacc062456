"""Wrong places are told before anything is loaded."""

from pathlib import Path

import pytest
import torch

from local_backend.cli import main
from local_backend.errors import ConfigError
from local_backend.launch import choose_device
from local_backend.parallel import lockstep


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--device", "gpu"], "'gpu' is not auto, cpu, cuda or cuda:N"),
        (["serve", "--device", "cuda:x"], "'cuda:x' is not auto, cpu, cuda or cuda:N"),
        (["profile", "--json", "/nowhere/profile.json"], "no file in a folder that exists"),
        (["bench", "--picture", "/tmp"], "no file in a folder that exists"),
        (["distill", "--out", "/proc/nothing"], "cannot make the folder /proc/nothing"),
    ],
)
def test_a_place_that_is_not_there_is_a_wrong_argument(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_text_that_cannot_be_read_is_told_before_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["distill", "--out", str(tmp_path), "--text", str(tmp_path / "none.txt"), "--threads", "1"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "none.txt" in told
    assert "observing the model" not in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are such devices here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}: torch sees no CUDA device"):
        choose_device(name)


def test_several_processes_take_no_single_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="cuda:1 is for one process"):
        lockstep.join(torch.device("cuda:1"))
