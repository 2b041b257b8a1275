"""A model server, and agents that answer through it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from holdfast.server.agents.openai import OpenAIAgent, openai_agent
from tests.support.fake_run import KEY
from tests.support.openai_endpoint import Endpoint


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A model server."""
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    """The package's client, as the agent makes it, but one that does not retry."""
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=endpoint.base_url, http_client=http, max_retries=0) as client:
        yield client


@pytest.fixture(params=["chat", "responses"])
def agent(request: pytest.FixtureRequest, client: openai.AsyncOpenAI) -> OpenAIAgent:
    """An agent without tools, for each of the two APIs."""
    return openai_agent(model="m", api=request.param, client=client)
