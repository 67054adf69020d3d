"""`demeanor chat`: talk to a model in the terminal, with the readings beside each reply while it is written, and the monitor on."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demeanor.cli import console
from demeanor.cli.chat_shown import STYLES, heated, policy_table, say, show, verdict
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.policy import PolicyOption, say_opening
from demeanor.errors import ConversationError, DemeanorError, PolicyError, nearest

if TYPE_CHECKING:
    from demeanor.monitor.session import Monitor, Session
    from demeanor.monitor.stream import ReplyStream
    from demeanor.steering import Plan

COMMANDS = {
    "/steer TRAIT=DOSE": "steer the model, several traits at once if you like; /steer off ends it",
    "/why": "what the last decision rests on, rule by rule and token by token",
    "/policy": "the rules and where they fire",
    "/new": "begin a new conversation",
    "/quit": "leave (or Ctrl-D); Ctrl-C breaks off a reply",
}


def chat(
    vectors: Vectors = None,
    model: OwnModel = None,
    policy: PolicyOption = None,
    country: Annotated[str, typer.Option("--country", help="Whose crisis resources are named: US, GB, ..., or none.")] = "US",
    audit: Annotated[Path | None, typer.Option("--audit", help="Append every decision to this audit log.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message. Default: the model's own.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of a reply.")] = 120,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token each time.")] = 0.7,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal replies.")] = 0,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Talk to a model with the monitor on: readings beside each reply, live; /steer, /policy and /why look into it.

    Reads lines from standard input where that is no terminal. The small embedded model is for trying out, not for advice.

    Example: demeanor chat --system "You are a kind listener."
    """
    from demeanor.monitor.policy import load_policy

    chosen = load_policy(policy)
    scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
    from demeanor.conversation import Message
    from demeanor.model.generation import Sampling
    from demeanor.monitor.session import Monitor

    with Monitor(scorer, chosen, country, audit) as monitor:
        history = (Message("system", system),) if system else ()
        sampling = Sampling(max_tokens, temperature, seed=seed)
        Chat(monitor, history, sampling).run()


class Chat:
    """The loop and what it remembers: the session, the last reply, the steering."""

    def __init__(self, monitor: Monitor, history: tuple[Any, ...], sampling: Any) -> None:
        self.monitor, self.history, self.sampling = monitor, history, sampling
        self.plan: Plan | None = None
        self.last: ReplyStream | None = None
        self.turns = self.conversations = 0
        self.run_id = secrets.token_hex(8)  # in the audit log, the first chat of another run is another conversation
        self.session: Session
        self.begin()

    def begin(self) -> None:
        """A new conversation."""
        self.conversations += 1
        self.last = None
        self.session = self.monitor.session(f"chat {self.run_id} {self.conversations}", self.history)

    def run(self) -> None:
        """Until the input ends."""
        console.out.print(f"[bold]{self.monitor.model}[/], policy {self.monitor.policy.policy.identity}", highlight=False)
        say_opening(self.monitor)
        console.out.print("[dim]Type a message. " + ", ".join(name.split()[0] for name in COMMANDS) + "; /help explains them.[/]")
        for line in _lines():
            if not line.startswith("/"):
                self.answer(line)
            elif line.split()[0] == "/quit":
                return
            else:
                try:
                    self.command(*line.split())
                except DemeanorError as error:
                    console.problem(str(error))

    def answer(self, said: str) -> None:
        """Put a message to the model and show its reply as it comes."""
        from dataclasses import replace

        from demeanor.model.contexts import Steering

        reader = self.session.monitor.scorer.reader  # type: ignore[union-attr]
        self.session.user(said)
        steering = Steering(reader.model, self.plan.interventions, blocks=reader.blocks) if self.plan else None
        stream = self.session.write(replace(self.sampling, seed=self.sampling.seed + self.turns), steering)
        self.turns, self.last = self.turns + 1, stream
        try:
            show(stream, self.monitor)
        except KeyboardInterrupt:
            console.note("broken off")
        if stream.decision is not None:
            say(verdict(stream.decision))
            if stream.decision.unrecorded:
                console.problem(f"not in the audit log: {stream.decision.unrecorded}")

    def command(self, name: str, *words: str) -> None:
        """Carry out a command. Raises DemeanorError where it cannot be."""
        if name == "/steer":
            self.steer(words)
        elif name == "/why":
            self.why()
        elif name == "/policy":
            console.out.print(policy_table(self.monitor))
            console.note(self.monitor.drift_note)
        elif name == "/new":
            self.begin()
            console.note("a new conversation")
        elif name == "/help":
            for command, what in COMMANDS.items():
                say(f"[bold]{command}[/]  {what}")
        else:
            raise PolicyError(f"no command {name}; /help explains those that there are; {nearest(name, [c.split()[0] for c in COMMANDS])}")

    def steer(self, words: tuple[str, ...]) -> None:
        """Set the steering, end it, or say what it is. Raises SteeringError."""
        from demeanor.cli.doses import parse_doses
        from demeanor.steering import plan_doses

        scorer = self.monitor.scorer
        assert scorer is not None
        if words == ("off",):
            self.plan = None
        elif words:
            doses = parse_doses(list(words), None)
            self.plan = plan_doses(scorer.vectors, doses, scorer.vectors.neutral_norm)
            for warning in self.plan.warnings:
                console.err.print(f"[yellow]warning:[/] {warning}")
        if self.plan is None:
            console.note("not steered; /steer TRAIT=DOSE steers, traits: " + ", ".join(scorer.traits))
            return
        for applied in self.plan.applied:
            console.note(f"steered: {applied}")
        console.note("steered replies are read by the unsteered model once they are whole, and shown then; /steer off ends it")

    def why(self) -> None:
        """What the last decision rests on."""
        from rich.text import Text

        decision = self.last.decision if self.last else None
        if decision is None or self.last is None:
            console.note("no reply has been judged yet")
            return
        say(verdict(decision))
        for result in decision.results:
            style = {"fired": STYLES[result.action], "raised": STYLES[result.action], "not scored": "yellow"}.get(result.state, "dim")
            say(Text(f"  {result.explanation}", style=style))
        for trait, pushes in decision.pushes.items():
            if pushes:
                most = ", ".join(f"{token.strip()!r} {z:+.1f}" for token, z in pushes)
                say(f"  pushed {trait} most: {most}", markup=False)
        if not decision.shown and self.last.text:
            say(Text("  withheld: ", style="dim") + heated(self.session, decision, self.last.text))
        if decision.drift is not None:
            for trait, state in decision.drift.items():
                say(f"  drift of {trait}: {state.level}", markup=False)
        spent = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in decision.latency_ms.items())
        console.note(f"{decision.source} reply; {spent}")


def _lines() -> Iterator[str]:
    """What is typed, or piped; blank lines are passed over."""
    if sys.stdin.isatty():
        while True:
            try:
                line = console.out.input("\n[bold cyan]you ›[/] ").strip()
            except KeyboardInterrupt:
                console.out.print("[dim](Ctrl-D or /quit leaves)[/]")
                continue
            except EOFError:
                return
            if line:
                yield line
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ConversationError(f"standard input is not UTF-8 text (line {number}, byte {error.start})") from error
        if line:
            say(f"\nyou › {line}", markup=False)
            yield line
