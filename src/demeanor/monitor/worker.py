"""The thread that calls wait in, and how long they wait: what scoring has of them, under the names by which the monitor knows them."""

from demeanor.scoring.worker import Deadline, Worker, reason

__all__ = ["Deadline", "Worker", "reason"]
