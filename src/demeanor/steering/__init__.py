"""Steering: doses, steered replies, what they do and cost, and the ways out to other engines."""

from demeanor.steering.dose import Applied, Plan, plan_doses, plan_projection
from demeanor.steering.replies import SteeredReply, steered_replies
from demeanor.steering.training import steering_hooks

__all__ = [
    "Applied",
    "Plan",
    "SteeredReply",
    "plan_doses",
    "plan_projection",
    "steered_replies",
    "steering_hooks",
]
