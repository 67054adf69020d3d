"""The dashboard: what was decided, what people say of it, and what decides next, as web pages on a review store and an audit log."""
