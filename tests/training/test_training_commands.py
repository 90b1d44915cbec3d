"""`python -m training`, command by command, on images that a test made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.catalog import Catalog
from model_store.reader import open_bundle
from training.__main__ import main

RECIPE = """
name = "tiny"
batch_size = 20
epochs = 2
bf16 = false
compiled = false

[network]
stem = "cifar"
image_size = 32
seed_units = 4
growth_units = 2
width_factors = [1, 2, 4]
bottleneck_factors = [1, 2, 4]
exit_layers = [2, 4]
classifier_channels = 8

[data]
dataset = "cifar10"
holdout_images = 40
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[sgd]
rate = 0.05

[schedule]
kind = "steps"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def run(recipe: Path, cifar_folder: Path, tmp_path: Path) -> Path:
    """A run trained for an epoch of three steps."""
    folder = tmp_path / "run"
    learn = ["train", str(recipe), "--data", str(cifar_folder), "--output", str(folder)]
    assert main([*learn, "--epochs", "1"]) == 0
    return folder


def with_data(command: str, run: Path, data: Path) -> list[str]:
    return [command, "--run", str(run), "--data", str(data)]


def test_a_run_is_trained_calibrated_and_evaluated(
    run: Path, cifar_folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(with_data("calibrate", run, cifar_folder)) == 0
    assert main(with_data("evaluate", run, cifar_folder)) == 0

    printed = capsys.readouterr().out
    assert "| exit | T | ECE at 1, % |" in printed
    assert "| budget, M MACs an image | geometric: accuracy, % |" in printed
    assert "test_batch is not the official file" in printed
    results = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert results["recipe"] == "tiny"
    assert results["step"] == 3
    assert results["num_images"] == 20
    assert len(results["exits"]) == 2
    assert len(results["sweep"]) == 2 * 12


@pytest.mark.slow
def test_an_exported_run_is_measured_as_it_was_before_the_export(
    run: Path, cifar_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(with_data("calibrate", run, cifar_folder))
    main(with_data("evaluate", run, cifar_folder))
    root, again = tmp_path / "bundles", tmp_path / "again.json"

    assert main(["export", "--run", str(run), "--root", str(root)]) == 0
    data = ["--data", str(cifar_folder), "--json", str(again)]
    assert main(["evaluate", "--bundle", str(root / "tiny" / "1"), *data]) == 0

    assert f"{root / 'tiny' / '1'}\n" in capsys.readouterr().out
    before, after = (json.loads(p.read_text("utf-8")) for p in (run / "evaluation.json", again))
    assert [e["accuracy"] for e in after["exits"]] == [e["accuracy"] for e in before["exits"]]
    assert after["exits"][1]["cumulative_macs"] == before["exits"][1]["cumulative_macs"]
    assert after["sweep"] == before["sweep"]
    provenance = open_bundle(root / "tiny" / "1").manifest.provenance
    assert provenance.recipe["name"] == "tiny"
    assert provenance.results["test_accuracy"] == [e["accuracy"] for e in before["exits"]]
    assert provenance.note is not None
    assert "test_batch" in provenance.note


@pytest.mark.slow
def test_each_export_is_a_version_of_its_own(
    run: Path, cifar_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(with_data("calibrate", run, cifar_folder))
    export = ["export", "--run", str(run), "--root", str(tmp_path), "--torchscript"]

    statuses = [main(export), main([*export, "--version", "5"]), main([*export, "--version", "5"])]
    statuses.append(main(export))

    assert statuses == [0, 0, 1, 0]
    assert "is there already" in capsys.readouterr().err
    assert Catalog([tmp_path]).versions("tiny") == (1, 5, 6)
    manifest = open_bundle(tmp_path / "tiny" / "6", allow_executable=True).manifest
    assert manifest.runtime == "torchscript"
    assert set(manifest.provenance.results) == {"training_steps", "training_minutes"}
    assert manifest.provenance.note is None


@pytest.mark.slow
def test_an_evaluation_of_earlier_weights_is_not_exported(
    run: Path, recipe: Path, cifar_folder: Path, tmp_path: Path
):
    main(with_data("evaluate", run, cifar_folder))
    main(["train", str(recipe), "--data", str(cifar_folder), "--output", str(run)])
    main(with_data("calibrate", run, cifar_folder))

    main(["export", "--run", str(run), "--root", str(tmp_path), "--torchscript"])

    manifest = open_bundle(tmp_path / "tiny" / "1", allow_executable=True).manifest
    assert "test_accuracy" not in manifest.provenance.results


def test_a_run_without_a_calibration_is_not_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(["export", "--run", str(run), "--root", str(tmp_path)])

    assert status == 1
    assert "calibrate first" in capsys.readouterr().err


def test_a_run_that_was_not_calibrated_is_evaluated_exit_by_exit(
    run: Path, cifar_folder: Path, tmp_path: Path
):
    elsewhere = tmp_path / "elsewhere.json"

    status = main([*with_data("evaluate", run, cifar_folder), "--json", str(elsewhere)])

    assert status == 0
    assert not (run / "evaluation.json").exists()
    assert json.loads(elsewhere.read_text(encoding="utf-8"))["sweep"] == []


def test_a_run_trained_on_since_its_calibration_is_refused(
    run: Path, recipe: Path, cifar_folder: Path, capsys: pytest.CaptureFixture[str]
):
    main(with_data("calibrate", run, cifar_folder))
    main(["train", str(recipe), "--data", str(cifar_folder), "--output", str(run)])

    status = main(with_data("evaluate", run, cifar_folder))

    assert status == 1
    assert "calibrate again" in capsys.readouterr().err


def test_a_missing_run_is_named(
    cifar_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(with_data("calibrate", tmp_path / "nowhere", cifar_folder))

    assert status == 1
    assert "nowhere holds no checkpoint.pt" in capsys.readouterr().err


def test_an_unknown_recipe_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status = main(["train", "no-such", "--output", str(tmp_path)])

    assert status == 1
    assert "no recipe 'no-such'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "calibrate", "evaluate", "export"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])

    assert left.value.code == 0
    assert "usage: python -m training" in capsys.readouterr().out


def test_a_run_and_a_bundle_are_not_evaluated_at_once(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "--run", "a", "--bundle", "b"])

    assert left.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.slow
def test_the_package_can_be_run_as_a_module():
    repository = Path(__file__).parents[2]

    shown = subprocess.run(
        [sys.executable, "-m", "training", "--help"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        timeout=25,
    ).stdout

    assert "From images to a bundle" in shown
    assert "calibrate" in shown
