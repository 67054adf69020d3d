"""The only room that knows transformers: loading, blocks, tokens and spans, reading, identity."""
