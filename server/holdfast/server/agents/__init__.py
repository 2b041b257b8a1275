"""The agents that come with the server: `demo`, and `openai` for any compatible endpoint."""
