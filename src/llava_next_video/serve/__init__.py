"""The OpenAI-style HTTP API, and the page at its root."""
