"""HTTP in front of the monitor: it translates requests to sessions and decisions to answers, and judges nothing itself."""
