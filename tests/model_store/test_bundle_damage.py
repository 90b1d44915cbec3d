import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import BundleError
from model_store.manifest import ManifestDraft
from model_store.reader import open_bundle

FILES = (
    "manifest.json",
    "manifest.sha256",
    "calibration.npz",
    "graphs/trunk-0.onnx",
    "graphs/classifier-1.onnx",
    "graphs/gather.onnx",
)


@pytest.fixture(scope="module")
def sound(
    tmp_path_factory: pytest.TempPathFactory,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
) -> Path:
    """A bundle that every example damages a copy of."""
    return make_bundle(tmp_path_factory.mktemp("sound"), make_draft())


@contextmanager
def _copy(sound: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(sound, Path(folder) / sound.parent.name / sound.name))


def _overwrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@given(name=st.sampled_from(FILES), place=st.floats(0, 1), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(sound: Path, name: str, place: float, change: int):
    content = bytearray((sound / name).read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= change

    with _copy(sound) as bundle:
        _overwrite(bundle / name, bytes(content))

        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle)


@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_refused(sound: Path, name: str, place: float):
    content = (sound / name).read_bytes()

    with _copy(sound) as bundle:
        _overwrite(bundle / name, content[: int(place * len(content))])

        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle)


@given(name=st.sampled_from(FILES), surplus=st.binary(min_size=1, max_size=100))
def test_anything_appended_is_refused(sound: Path, name: str, surplus: bytes):
    with _copy(sound) as bundle:
        _overwrite(bundle / name, (sound / name).read_bytes() + surplus)

        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle)


@given(name=st.sampled_from(FILES), noise=st.binary(max_size=200))
def test_noise_in_place_of_a_file_is_refused(sound: Path, name: str, noise: bytes):
    with _copy(sound) as bundle:
        _overwrite(bundle / name, noise)

        with pytest.raises(BundleError, match=str(bundle)):
            open_bundle(bundle)
