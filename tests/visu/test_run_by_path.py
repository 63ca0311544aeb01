"""The scripts of visu/ work as `python visu/NAME.py`, and report bad input in one line."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NO_CHECKPOINT = "gone: cannot read this checkpoint: No such file or directory"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report.py gone", "gone: not the experiment folder of a run: it has no images.txt"),
        ("clusters.py gone", "gone: not the experiment folder of a run: it has no images.txt"),
        ("curves.py gone", "gone: no finished epoch in its metrics.jsonl"),
        ("feature_map.py gone", "gone: no such experiment folder or checkpoint"),
        ("gradient_ascent.py --model gone --exp e", NO_CHECKPOINT),
        ("activ-retrieval.py --model gone --exp e --data images", NO_CHECKPOINT),
    ],
)
def test_a_script_that_is_run_by_its_path_finds_the_other_rooms(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *flags = command.split()
    script = str(ROOT / "visu" / name)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (8, 8)).save("images/a.png")
    monkeypatch.setattr(sys, "argv", [script, *flags])
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place) != ROOT])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(script, run_name="__main__")
    error = capsys.readouterr().err
    assert error.endswith(f".py: error: {message}\n")
    assert error.count("\n") == 1
    assert str(ROOT) in sys.path
