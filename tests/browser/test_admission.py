"""A page whose connection the server would refuse says so, with what to set."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, expect

from tests.support.program import Serve


async def test_behind_a_proxy_that_hands_on_another_host(demo: Serve, browser: Browser) -> None:
    """The page comes without its port in `Host`, as from nginx's `$host`: it names both, and what to write instead."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = re.sub(rb"\r\nHost: [^\r]*", b"\r\nHost: 127.0.0.1", await reader.readuntil(b"\r\n\r\n"))
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", demo.port)
        server_writer.write(request)
        writer.write(await server_reader.read())  # each response ends its connection, but one that opens a session
        for each in (server_writer, writer):
            each.close()
            await each.wait_closed()

    proxy = await asyncio.start_server(carry, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(origin)
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text(f"Pages of {origin} may not connect")
        await expect(alert).to_contain_text("127.0.0.1 (Host)")
        await expect(alert).to_contain_text("proxy_set_header Host $http_host")
    finally:
        await context.close()
        proxy.close()
        await proxy.wait_closed()


async def test_a_page_that_is_admitted_says_nothing_of_it(demo: Serve, browser: Browser) -> None:
    """It asked, and there was nothing to say."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        async with page.expect_response(re.compile("/v1/admission")) as asked:
            await page.goto(f"http://127.0.0.1:{demo.port}")
        assert (await asked.value).status == 200
        await expect(page.get_by_role("alert")).to_have_count(0)
    finally:
        await context.close()
