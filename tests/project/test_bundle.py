"""Bundles for a machine without a network: what fits into them, and what comes out of them."""

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import bundle
import pytest
import unpacking


def packed(folder: Path, out: Path, limit: int) -> list[Path]:
    """The category in `folder`, in bundles of at most `limit` bytes."""
    items = bundle.folder("data/pill", folder)
    listed = bundle.Item("sets", "sets/1.json", b'{"commit": "c", "parts": {"data/pill": %d}}' % len(items))
    out.mkdir()
    parts = bundle.split(items, limit, listed.packed())
    return [bundle.write([listed, *part], out, str(n)) for n, part in enumerate(parts)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Files around the sizes at which an archive takes another block, one with a long name."""
    folder = tmp_path / "pill"
    folder.mkdir()
    for size in (0, 1, 511, 512, 513, 9000, 10240, 12000, 3000):
        (folder / f"{size}.png").write_bytes(bytes(size))
    (folder / ("n" * 150 + ".png")).write_bytes(b"long name")
    return folder


@pytest.mark.parametrize("limit", [20480, 30000, 30720, 61440])
def test_no_bundle_is_larger_than_asked_for_and_together_they_hold_all(
    images: Path, tmp_path: Path, limit: int
):
    bundles = packed(images, tmp_path / "out", limit)
    assert (len(bundles) > 1) == (limit < 61440)
    assert all(path.stat().st_size <= limit for path in bundles)
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    there = {path.name: path.read_bytes() for path in (tmp_path / "work/data/pill").iterdir()}
    assert there == {path.name: path.read_bytes() for path in images.iterdir()}


def test_a_file_that_fits_nowhere_is_refused_by_name(images: Path):
    with pytest.raises(ValueError, match=r"data/pill/10240\.png takes .* larger --size"):
        bundle.split(bundle.folder("data/pill", images), 12288)


def test_a_category_appears_when_its_last_file_has_come(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    first, *_, last = packed(images, tmp_path / "out", 20480)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + b"x")  # damaged on the way
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "work/data/pill").exists()
    said = capsys.readouterr().out
    assert f"{last.name} is left out: damaged" in said
    assert "of 10 files" in said
    last.write_bytes(whole)
    first.unlink()  # unpacked before
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert len(list((tmp_path / "work/data/pill").iterdir())) == 10


def test_a_full_disk_leaves_no_part_of_a_file(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A file that broke off would count: its part would be taken for a whole one."""
    packed(images, tmp_path / "out", 61440)

    def full(_: tarfile.TarFile, target: Path, members: list[tarfile.TarInfo], **_filter: str) -> None:
        for member in members:
            (target / member.name).parent.mkdir(parents=True, exist_ok=True)
            (target / member.name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extractall", full)
        unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert "is left out: [Errno 28] No space" in capsys.readouterr().out
    assert not (tmp_path / "work/data/pill").exists()
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert unpacking.files(tmp_path / "work/data/pill") == unpacking.files(images)


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path):
    evil = bundle.write([bundle.Item("x", "../evil", b"")], tmp_path, "1")
    with pytest.raises(tarfile.FilterError):
        unpacking.unpack(evil, tmp_path / "work")
    assert not (tmp_path / "evil").exists()


def test_a_part_that_comes_again_with_other_content_stops_with_the_remedy(images: Path, tmp_path: Path):
    out, work = tmp_path / "out", tmp_path / "work"
    packed(images, out, 61440)
    unpacking.gather(out, work)
    kept = unpacking.files(work / "data/pill")
    for path in out.iterdir():
        path.rename(out / f"again-{path.name}")  # another bundle, the same content
    unpacking.gather(out, work)
    assert not (work / "incoming/data/pill").exists()
    (images / "511.png").write_bytes(b"mended")
    packed(images, tmp_path / "mended", 61440)
    with pytest.raises(
        ValueError, match=f"data/pill has come again .* delete {work}/data/pill and the records"
    ):
        unpacking.gather(tmp_path / "mended", work)
    assert unpacking.files(work / "data/pill") == kept
    shutil.rmtree(work / "data/pill")
    unpacking.gather(tmp_path / "mended", work)
    assert (work / "data/pill/511.png").read_bytes() == b"mended"


def test_wheels_of_another_python_are_refused(tmp_path: Path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for name in (f"a-1-{here}-{here}-any", "b-1-py3-none-any", "c-1-cp39-abi3-any"):
        with zipfile.ZipFile(wheels / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name}.py", "")
    unpacking.install(tmp_path)
    assert len(list((tmp_path / "site").glob("*.py"))) == 3
    (wheels / "d-1-cp27-cp27-any.whl").touch()
    with pytest.raises(ValueError, match=r"d-1-cp27.* is of another Python: .* --python 3\.\d+"):
        unpacking.install(tmp_path)


def test_links_are_refused(images: Path, tmp_path: Path):
    class Link(bundle.Item):
        def header(self) -> tarfile.TarInfo:
            info = tarfile.TarInfo(self.name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            return info

    path = bundle.write([Link("data", "data/pill", b"")], tmp_path, "1")
    with pytest.raises(ValueError, match="data/pill is no plain file"):
        unpacking.unpack(path, tmp_path / "work")
    assert not (tmp_path / "work").exists()
