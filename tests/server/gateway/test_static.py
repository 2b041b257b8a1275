"""The chat page and the library's modules, as a browser and as a terminal get them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.server.gateway.static import Files, files_in, shipped
from holdfast.server.settings import GatewaySettings
from tests.support.served import served

INDEX = "<!doctype html><title>Holdfast</title>"
MODULE = "export const answer = 42;\n" * 4_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A place laid out like client/browser, with what must stay outside beside it."""
    browser = tmp_path / "browser"
    contents: dict[str, str] = {
        "page/index.html": INDEX,
        "page/styles/page.css": "body { margin: 0 }",
        "page/vendor/LICENSE": "MIT",
        "page/secret.key": "of a kind that is not served",
        "holdfast/index.js": MODULE,
        "node_modules/x/index.js": "nobody's",
        "package.json": "{}",
    }
    for name, text in contents.items():
        (browser / name).parent.mkdir(parents=True, exist_ok=True)
        (browser / name).write_text(text)
    (tmp_path / "outside.js").write_text("outside")
    return browser


@pytest.fixture
def files(directory: Path) -> Files:
    """Its files."""
    return files_in(directory)


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/", "text/html; charset=utf-8", INDEX),
        ("/?session=a", "text/html; charset=utf-8", INDEX),
        ("/page/index.html", "text/html; charset=utf-8", INDEX),
        ("/page/styles/page.css", "text/css; charset=utf-8", "body { margin: 0 }"),
        ("/page/vendor/LICENSE", "text/plain; charset=utf-8", "MIT"),
        ("/holdfast/index.js", "text/javascript; charset=utf-8", MODULE),
    ],
)
async def test_files_come_as_what_they_are(files: Files, path: str, content_type: str, body: str) -> None:
    """Each file has its type and length, must be asked about again, and may be taken for nothing else."""
    async with served(files=files) as server:
        response = await server.request(path, "Accept: text/html,*/*")
    assert (response.status, response.body.decode()) == (200, body)
    assert response.headers["content-type"] == content_type
    assert response.headers["content-length"] == str(len(body))
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/page/../package.json",
        "/page/../../outside.js",
        "/page/%2e%2e/package.json",
        "/page/..%2fpackage.json",
        "/page//index.html",
        "/page/./index.html",
        "/page/",
        "/page",
        "/page/secret.key",
        "/package.json",
        "/node_modules/x/index.js",
        "/holdfast/INDEX.js",
        "/holdfast/index.js/",
        "/holdfast/index.js%00",
        "/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "//[",
        "",
    ],
)
async def test_nothing_else_is_there(files: Files, path: str) -> None:
    """A path that is not in the list is not found, whatever lies on the disk."""
    async with served(files=files) as server:
        assert (await server.request(path)).status == 404


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("If-None-Match: {etag}", 304),
        ("If-None-Match: W/{etag}", 304),
        ('If-None-Match: "other", {etag}', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "other"', 200),
        ("If-None-Match: ", 200),
    ],
)
async def test_what_the_browser_has_is_not_sent_again(files: Files, condition: str, status: int) -> None:
    """A copy with the right tag is answered by 304 without a body, any other with the file."""
    async with served(files=files) as server:
        first = await server.request("/holdfast/index.js")
        again = await server.request("/holdfast/index.js", condition.format(etag=first.headers["etag"]))
    assert again.status == status
    assert again.body == (first.body if status == 200 else b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert ("content-length" in again.headers) == (status == 200)


async def test_another_content_is_another_tag(directory: Path, files: Files) -> None:
    """After an update every browser fetches what has changed."""
    (directory / "holdfast" / "index.js").write_text("export {};")
    changed = files_in(directory)
    assert changed["/holdfast/index.js"].etag != files["/holdfast/index.js"].etag
    assert changed["/"].etag == files["/"].etag


@pytest.mark.parametrize(
    ("host", "connect"),
    [
        ("localhost:8787", "'self' ws://localhost:8787 wss://localhost:8787"),
        ("[::1]:8787", "'self'"),
        (None, "'self'"),
    ],
)
async def test_the_page_may_do_no_more_than_it_needs(files: Files, host: str | None, connect: str) -> None:
    """The policy lets in the page's own modules and styles, and lets out what goes to this server."""
    async with served(files=files) as server:
        policy = (await server.request("/page/index.html", host=host)).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["connect-src"] == connect
    assert (rules["default-src"], rules["script-src"], rules["style-src"]) == ("'none'", "'self'", "'self'")
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/holdfast/index.js", "/healthz", "/readyz", "/nowhere", "/v1/sessions/s"])
async def test_head_is_get_without_the_body(files: Files, path: str) -> None:
    """HEAD gets the status and the headers of GET, its length too, and nothing after them."""
    async with served(files=files) as server:
        get, head = [await server.request(path, method=method) for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/sessions/s"])
async def test_other_methods_are_refused(files: Files, path: str, method: str) -> None:
    """Nothing is changed over HTTP; the response names what may be asked."""
    async with served(files=files) as server:
        response = await server.request(path, method=method)
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("accept", [[], ["Accept: */*"]])
async def test_a_terminal_gets_text(files: Files, accept: list[str]) -> None:
    """`/` is the page for who asks for HTML, and a text that says where it is for who does not; caches are told."""
    async with served(files=files) as server:
        response = await server.request("/", *accept)
        assert f"In a browser:           http://{server.address}/\n" in response.body.decode()
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["vary"] == "Accept"


async def test_a_missing_page_is_said(tmp_path: Path) -> None:
    """Where the files are not installed `/` says so, to a browser as well, and sessions are served all the same."""
    async with served(files=files_in(tmp_path)) as server:
        response = await server.request("/", "Accept: text/html")
        assert response.status == 200
        assert "no page is served here" in response.body.decode()
        async with server.client(hello={}) as client:
            assert client.received[0]["type"] == "welcome"


async def test_a_server_without_the_page_still_has_the_library(files: Files) -> None:
    """An operator may leave the page out; pages of his own on the same host find the modules."""
    async with served(files=files, settings=GatewaySettings(page=False)) as server:
        front = await server.request("/", "Accept: text/html")
        assert "no page is served here" in front.body.decode()
        assert (await server.request("/page/index.html")).status == 404
        assert (await server.request("/holdfast/index.js")).status == 200


async def test_a_browser_may_ask_for_all_modules_at_once(files: Files) -> None:
    """Thirty requests at the same time are all answered in full."""
    async with served(files=files) as server:
        responses = await asyncio.gather(*(server.request("/holdfast/index.js") for _ in range(30)))
    assert {(response.status, response.body.decode()) for response in responses} == {(200, MODULE)}


async def test_requests_do_not_touch_the_disk(directory: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read at the start is what is served, also when the files are gone."""
    (directory / "holdfast" / "index.js").unlink()

    def refuse(*_: Any) -> None:
        raise AssertionError("a file was opened for a request")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    async with served(files=files) as server:
        assert (await server.get("/holdfast/index.js"))[1] == MODULE


def test_a_working_copy_serves_its_own_files() -> None:
    """Without a wheel the page and the library are taken from the source tree."""
    assert all(path == "/" or path.startswith(("/holdfast/", "/page/")) for path in shipped())
    assert "/holdfast/core/connection.js" in shipped()
