"""The one client for OpenAI-compatible endpoints: many questions, bounded, paced, retried, recorded as they come."""
