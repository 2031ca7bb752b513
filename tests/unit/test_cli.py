import json
import subprocess
import sys

import pytest

from r1mm.cli import main


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom r1mm.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print('HEAVY', [m for m in ('torch', 'transformers', 'trl', 'datasets', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in result.stdout
    assert "r1mm reproduce r1v-mini" in result.stdout


def test_every_verb_has_help_that_says_more_than_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("reproduce", "stage", "verdict", "report", "score", "recipes", "doctor"):
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        assert len(capsys.readouterr().out) > 200


def test_a_verb_of_steps_teaches_the_chain_and_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([], "r1mm distill questions --scenes"),
        (["questions"], "upstream's notebook"),
        (["filter"], "one whole thinking block"),
        (["build"], "data/valA-*.parquet"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["distill", *arguments, "--help"])
        assert stopped.value.code == 0
        assert words in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["distill"])
    assert stopped.value.code == 2


def test_recipes_list_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "r1v-mini" in [row["name"] for row in rows]
    assert main(["recipes", "check", "r1v-mini"]) == 0
    assert capsys.readouterr().out.startswith("r1v-mini: good")


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "check", "r2v"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("r1mm: error: there is no recipe 'r2v'")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_reading_recipes_imports_nothing_heavy() -> None:
    code = "import sys, r1mm.recipe; assert not {'torch', 'transformers', 'trl', 'datasets'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctor_says_what_it_saw(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    main(["doctor", "--json", "--runs", str(tmp_path)])
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["python"]["good"]
    assert found["packages"]["seen"] == "as locked in cpu.txt"
    assert found["write permission"]["good"]
    assert all(check["good"] or check["remedy"] for check in found.values())
