"""The chained log of what was decided, and its counts. It takes plain records and knows no decision, no policy and no tensor."""
