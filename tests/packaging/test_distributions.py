"""The wheel and the sdist, built from this tree, hold what a user needs and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path, PurePosixPath
from subprocess import PIPE, STDOUT

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("protocol", "server", "client")


def run(*command: str | Path, cwd: Path) -> str:
    """What a program printed; a failure shows what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one wheel and one sdist. The wheel is built from the sdist, as installers do it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=ROOT)
    with tarfile.open(next(out.glob("*.tar.gz"))) as sdist:
        sdist.extractall(out, filter="data")
    (source,) = (path for path in out.iterdir() if path.is_dir())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=source)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what stands in a user's site-packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        archive.extractall(site)
    return site


def modules_of(root: Path) -> set[PurePosixPath]:
    """The modules and type markers below a directory, without what running them left there."""
    return {
        PurePosixPath(path.relative_to(root).as_posix())
        for path in root.rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }


def test_the_wheel_holds_exactly_the_three_portions(wheel: Path) -> None:
    """Every module of the three source roots is in the wheel, and no other module, tests included."""
    roots = [ROOT / "protocol", ROOT / "server", ROOT / "client" / "python"]
    assert modules_of(wheel) == set[PurePosixPath]().union(*map(modules_of, roots))


@pytest.mark.parametrize("portion", PORTIONS)
def test_every_portion_is_typed(wheel: Path, portion: str) -> None:
    """Type checkers read the annotations of an installed portion."""
    assert (wheel / "holdfast" / portion / "py.typed").is_file()


def test_the_namespace_belongs_to_nobody(wheel: Path) -> None:
    """`holdfast` itself is no package: with an __init__ an editable install loses the other portions."""
    assert not (wheel / "holdfast" / "__init__.py").exists()


def files_of(directory: Path, root: Path) -> set[Path]:
    """The files below a directory, as seen from `root`."""
    return {path.relative_to(root) for path in directory.rglob("*") if path.is_file()}


def test_the_wheel_holds_what_browsers_get(wheel: Path) -> None:
    """The library and the page are in the wheel, and of client/browser nothing else."""
    source = ROOT / "client" / "browser"
    expected = files_of(source / "holdfast", source) | files_of(source / "page", source)
    browser = wheel / "holdfast" / "browser"
    assert files_of(browser, browser) == expected
    assert {Path("holdfast/index.js"), Path("page/index.html")} <= expected


def test_the_sdist_can_be_read_without_the_repository(dist: Path) -> None:
    """Whoever gets the sdist has the licence, the wire's text and its vectors."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "protocol/PROTOCOL.md"} <= names
    assert any(name.startswith("protocol/vectors/") for name in names)
    assert not any(name.startswith(("tests/", ".venv/")) or "node_modules" in name for name in names)


def installed(wheel: Path, code: str) -> tuple[str, ...]:
    """What runs Python code where only the wheel and the dependencies are installed."""
    # -S keeps the editable install's path file out; the dependencies stay reachable.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    paths = f"import sys; sys.path[:0] = {[str(wheel)]!r}; sys.path += {libraries!r}\n"
    return (sys.executable, "-I", "-S", "-c", paths + code)


def test_an_installed_server_gives_browsers_the_page(wheel: Path, tmp_path: Path) -> None:
    """`holdfast serve` from the wheel, far from the source tree, serves the page and its modules."""
    serve = (
        "sys.argv[1:] = ['serve', '--port', '0', '--store', 'memory:']; import holdfast.client.cli as cli; cli.main()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "OPENAI_"))}
    with subprocess.Popen(
        installed(wheel, serve), cwd=tmp_path, env=clean, stdout=PIPE, stderr=STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            page = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+/", line)))
            for path, kind, file in [
                ("", "text/html", "page/index.html"),
                ("holdfast/index.js", "text/javascript", None),
            ]:
                request = urllib.request.Request(page + path, headers={"Accept": "text/html"})
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.headers.get_content_type() == kind
                    assert answer.read() == (ROOT / "client" / "browser" / (file or path)).read_bytes()
        finally:
            server.kill()


def test_the_installed_portions_import(wheel: Path) -> None:
    """The modules of the wheel work from where an installer puts them, far from the source tree."""
    code = (
        "import holdfast.protocol, holdfast.server, holdfast.client\n"
        "print(holdfast.protocol.__file__, holdfast.server.__file__, holdfast.client.__file__, sep='\\n')"
    )
    files = run(*installed(wheel, code), cwd=wheel).split()
    assert files == [str(wheel / "holdfast" / portion / "__init__.py") for portion in PORTIONS]


def entry_points(wheel: Path) -> list[EntryPoint]:
    """The entry points that the wheel declares."""
    (info,) = wheel.glob("*.dist-info")
    return list(PathDistribution(info).entry_points)


def test_every_entry_point_leads_somewhere(wheel: Path) -> None:
    """Each program and each subcommand that the metadata names can be loaded and called."""
    points = entry_points(wheel)
    assert {point.group for point in points} == {"console_scripts", "holdfast.commands"}
    for point in points:
        assert callable(point.load()), point
