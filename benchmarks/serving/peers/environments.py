"""The peers' virtual environments: one each, of pinned versions, apart from the project's own."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.serving.server import ServerFailed

WORK: Final = Path("build/peers")  # git ignores it

_REQUIREMENTS: Final = Path(__file__).parent / "requirements"


def install(peer: str) -> None:
    """Make a peer's environment, or bring it to what its requirements say.

    Raises:
        subprocess.CalledProcessError: pip could not; it says why.
    """
    folder = WORK / peer
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603 - this interpreter
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(requirements(peer))], check=True)  # noqa: S603 - spelt out here
    (folder / "installed").write_text(requirements(peer).read_text("utf-8"), encoding="utf-8")


def is_installed(peer: str) -> bool:
    """Return whether the environment holds what the requirements say now."""
    done = WORK / peer / "installed"
    return done.is_file() and done.read_text("utf-8") == requirements(peer).read_text("utf-8")


def interpreter(peer: str) -> Path:
    """Return the Python of a peer's environment.

    Raises:
        ServerFailed: It is not installed, or is out of date.
    """
    if not is_installed(peer):
        raise ServerFailed(
            f"{peer} is not there: python -m benchmarks.serving.peers install {peer}"
        )
    return (WORK / peer / "bin" / "python").absolute()


def requirements(peer: str) -> Path:
    """Return the file that pins a peer's environment."""
    return _REQUIREMENTS / f"{peer}.txt"


def versions(peer: str) -> dict[str, str]:
    """Return what the environment is pinned to, by package."""
    lines = requirements(peer).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.strip(): version.strip() for name, version in pairs}
