"""JSON of strangers: an object within bounds, or one sentence."""

from pathlib import Path

import pytest

from uebench.common.json_file import AbsentFileError, read_object, read_run_json


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {"title": "\u00e9"}}', encoding="utf-8")
    assert read_run_json(tmp_path, ("config",))["config"] == {"title": "\u00e9"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b'{"config": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"config": 3}', "has no config or recipes"),
        (b"{" + b" " * 2000 + b"}", "MB"),
    ],
)
def test_anything_else_gets_a_sentence(
    content: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_bytes(content)
    if told == "MB":
        monkeypatch.setattr("uebench.common.json_file.MOST_JSON_BYTES", 1000)
    with pytest.raises(ValueError, match=told) as caught:
        read_run_json(tmp_path, ("config", "recipes"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AbsentFileError, match=r"has no run\.json; give the folder"):
        read_run_json(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(AbsentFileError, match=r"has no run\.json"):
        read_run_json(tmp_path / "file")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read_object(tmp_path / "folder.json")
