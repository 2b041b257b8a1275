"""What the author of an agent uses, and the agents that come with the server: `demo`, and `openai` for any endpoint."""
