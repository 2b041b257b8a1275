"""The agent that answers through any OpenAI-compatible model server."""

from holdfast.server.agents.openai.agent import Api, OpenAIAgent, openai_agent

__all__ = ["Api", "OpenAIAgent", "openai_agent"]
