"""The npm package, packed from this tree and installed into a fresh project."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSER = ROOT / "client" / "browser"
SCRIPT = """\
import * as holdfast from "holdfast";
import * as hooks from "holdfast/react";

class Silent extends EventTarget {
  close() {}
}

const session = holdfast.connect("ws://127.0.0.1:9", { session: "s", WebSocket: Silent });
const run = session.send("Hello");
const closed = run.accepted.catch((error) => error instanceof holdfast.ClientClosedError && error.code);
session.close();
console.log(JSON.stringify([Object.keys(hooks).sort(), session.status, run.status, await closed]));
"""
TYPED = """\
import { ClientClosedError, connect, HoldfastError, indexedDBStorage } from "holdfast";
import type { Event, Message, RunResult, Session, Token } from "holdfast";
import { useRun, useSession } from "holdfast/react";

const token: Token = async () => "t";
const session: Session = connect("http://localhost:8787", { session: "s", token, storage: indexedDBStorage() });
const stop: () => void = session.subscribe((change) => change.events.map((event: Event) => event.seq.toFixed()));
const first: Message | undefined = session.view.messages[0];
const run = session.send("Hello", { whenBusy: "queue" });
const textOf = ({ parts }: Message) => parts.map((part) => (part.kind === "text" ? part.text.trim() : "")).join("");
const [request] = run.info?.requests ?? [];
if (request?.kind === "approval") await run.answer(request.id, true);

export async function read(): Promise<RunResult> {
  for await (const text of run) console.log(text.toUpperCase());
  const { outcome } = await run.cancel();
  if (outcome === "withdrawn") stop();
  return run.ended();
}

export function Chat({ id }: { id: string | null }) {
  const { session, status, messages } = useSession("/", { session: "s" });
  const run = useRun(session, id);
  return [status === "live", messages.map(textOf), run?.text.length];
}

export const isClosed = (error: HoldfastError) => error instanceof ClientClosedError && error.code.length > 0;

// @ts-expect-error only a type: `connect` makes sessions
new Session();
// @ts-expect-error a session has a name
connect("/", {});
// @ts-expect-error there is no such way
session.send("Hello", { whenBusy: "sometimes" });
// @ts-expect-error not a run's status
export const wrong: boolean = run.status === "finished";
// @ts-expect-error a view is not written to
session.view.messages.push(first);
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a program printed; a failure shows what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published."""
    out = tmp_path_factory.mktemp("npm")
    run(sys.executable, ROOT / "dev", "pack", out, cwd=ROOT)
    (packed,) = out.iterdir()
    return packed


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the package installed, and React, whose types it needs."""
    place = tmp_path_factory.mktemp("project")
    (place / "package.json").write_text('{ "name": "project", "private": true, "type": "module" }')
    run("npm", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", tarball, cwd=place)
    modules = place / "node_modules"
    (modules / "@types").mkdir()
    for name in ("react", "@types/react", "csstype"):
        (modules / name).symlink_to(BROWSER / "node_modules" / name)
    return place


def manifest(tarball: Path) -> dict[str, Any]:
    """The package.json that is published."""
    with tarfile.open(tarball) as packed:
        file = packed.extractfile("package/package.json")
        assert file is not None
        content: dict[str, Any] = json.load(file)
    return content


def test_the_version_is_that_of_the_python_package(tarball: Path) -> None:
    """There is one version, in pyproject.toml, and the working copy's package.json has none to differ."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert manifest(tarball)["version"] == version
    assert tarball.name == f"holdfast-{version}.tgz"
    assert "version" not in json.loads((BROWSER / "package.json").read_text())


def test_the_package_holds_the_library_and_nothing_else(tarball: Path) -> None:
    """The modules, a declaration for each, and three files about them."""
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
    library = BROWSER / "holdfast"
    modules = {path.relative_to(library).as_posix() for path in library.rglob("*") if path.is_file()}
    assert names == (
        {"package.json", "README.md", "LICENSE"}
        | {f"holdfast/{name}" for name in modules}
        | {f"types/{name.removesuffix('.js')}.d.ts" for name in modules}
    )
    assert all(name.endswith(".js") for name in modules)


def test_the_package_asks_for_nothing(tarball: Path) -> None:
    """It has no dependencies but React, where it is used, and runs no script at an installation."""
    package = manifest(tarball)
    assert not {"dependencies", "devDependencies", "scripts", "private"} & set(package)
    assert package["peerDependencies"] == {"react": ">=18"}
    assert package["peerDependenciesMeta"] == {"react": {"optional": True}}


def test_a_program_imports_it(project: Path) -> None:
    """Both entrances work in node, and the client does so without a browser around it."""
    (project / "program.js").write_text(SCRIPT)
    assert json.loads(run("node", "program.js", cwd=project)) == [
        ["useRun", "useSession"],
        "closed",
        "unknown",
        "client_closed",
    ]


@pytest.mark.parametrize("resolution", [("nodenext", "nodenext"), ("esnext", "bundler")])
def test_a_typescript_program_is_checked_against_it(project: Path, resolution: tuple[str, str]) -> None:
    """The declarations hold by themselves under the strictest settings, and tell right uses from wrong ones."""
    (project / "program.ts").write_text(TYPED)
    strict = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit", "--types", "react")
    module, how = resolution
    target = ("--target", "es2022", "--module", module, "--moduleResolution", how)
    run(BROWSER / "node_modules" / ".bin" / "tsc", *strict, *target, "program.ts", cwd=project)
