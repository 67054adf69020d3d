"""The monitor: what is done about a reply, in place of which other, by which policy, and what is recorded of it."""
