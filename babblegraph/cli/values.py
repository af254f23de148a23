"""Who says what a node is worth: the value that the user asked for, made from options and a loaded generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from babblegraph.cli.problems import as_chats, asked_of, question_of
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from babblegraph.cli.build import Plan
    from babblegraph.cli.loading import Prompt

EMBEDDED, EMBEDDED_TASK = "embedded", "countdown"
SPECIAL = 16  # tokens at most that a tokenizer adds to a text
BEGINNING = 60  # characters of a prompt that name it


def value(plan: Plan, generator: Any) -> Any:
    """The value that the user asked for; else the embedded generator's own verdict, or what the task says."""
    options = plan.options
    if plan.function is not None:
        from babblegraph.scoring import function_value

        return function_value(plan.function)
    if options.value is not None:
        return _learned(plan, generator)
    if options.reward_model is not None:
        from babblegraph.scoring import RewardModelValue

        return _rewarding(RewardModelValue, options.reward_model, plan, generator)
    if options.process_model is not None:
        from babblegraph.scoring import ProcessModelValue

        how: dict[str, Any] = {"steps": generator.span.stop[0] if generator.span.stop else "\n"}
        how |= {"separator": options.separator} if options.separator is not None else {}
        how |= {"aggregate": options.aggregate} if options.aggregate is not None else {}
        return _rewarding(ProcessModelValue, options.process_model, plan, generator, **how)
    if options.judge is not None:
        from babblegraph.scoring import JudgeValue

        return JudgeValue(generator, options.judge, list(options.good), list(options.bad))
    if (learned := _learned(plan, generator)) is not None:
        return learned
    if plan.model == EMBEDDED and known(plan.task) == EMBEDDED_TASK:  # the others give no verdict
        from babblegraph.scoring import JudgeValue

        return JudgeValue(generator)
    return None


def known(task: Any) -> str:
    """The task whose embedded generator goes with a task."""
    from babblegraph.lm.babbler import SHIPPED

    name = getattr(task, "name", "")
    return name if name in SHIPPED else EMBEDDED_TASK


def _learned(plan: Plan, generator: Any) -> Any:
    """The value head in the folder that the user named, else the one beside the model's weights, if there is one."""
    from babblegraph.lm.babbler import EMBEDDED as HOME
    from babblegraph.scoring.learned import LearnedValue, is_there

    if plan.options.value is not None:
        return LearnedValue.from_folder(generator, plan.options.value)
    if plan.model == EMBEDDED and known(plan.task) != EMBEDDED_TASK:
        return None
    folder = HOME if plan.model == EMBEDDED else plan.model
    return LearnedValue.from_folder(generator, folder) if is_there(folder) else None


def _rewarding(kind: Any, folder: str, plan: Plan, generator: Any, **how: Any) -> Any:
    """A reward model, which reads what the user asked: in its own chat template where the generator has a chat."""
    options, asked = plan.options, _asked(plan, generator)
    where = {"device": options.device, "trust_remote_code": options.trust_remote_code}
    found = kind.from_pretrained(folder, **where, **how, asked=asked)
    if asked:
        from babblegraph.scoring.rewards import CHAT

        if found.tokenizer.chat_template:
            found.template = CHAT
        elif "{text}" in found.template:
            found.template = "{prompt}\n{text}"
        else:
            found.template = "{prompt}\n"
    return found


def _asked(plan: Plan, generator: Any) -> dict[str, str]:
    """What was asked, by prompts as the generator reads them, where a chat template makes the difference."""
    chat = bool(plan.options.chat)
    if plan.prompts is None:
        return dict(plan.graph.meta.get("asked", {})) if plan.graph is not None else {}
    if not chat and all(isinstance(prompt, str) for prompt in plan.prompts):
        return {}
    from babblegraph.lm.prompts import encoded

    prompts = said(plan.prompts, plan)
    read = [encoded(prompt, generator.tokenizer, generator.vocabulary)[0] for prompt in prompts]
    return asked_of(plan.prompts, read, chat)


def said(prompts: Sequence[Prompt], plan: Plan) -> Sequence[Prompt]:
    """Prompts as the model is told them: with --chat each text is what a user says."""
    return as_chats(prompts, plan.task, plan.options.system) if plan.options.chat else prompts


def need_chat(plan: Plan, generator: Any) -> None:
    """Says, before anything is computed, that a model has no chat template.

    Raises:
        BadInput: it has none, and --chat was given.
    """
    if plan.options.chat and not getattr(generator.tokenizer, "chat_template", None):
        raise BadInput(
            f"--chat needs a model with a chat template, got {plan.model!r} without one: leave --chat out"
        )


def need_room(prompts: Sequence[Prompt], task: Any, generator: Any) -> None:
    """Says, before anything is computed, which of many prompts is too long for a model.

    Args:
        prompts: as the model is told them.
        task: which prepares them, or None.
        generator: of any kind; one without a context takes all.

    Raises:
        BadInput: one leaves no room in the model's context.
    """
    if (context := getattr(generator, "context", None)) is None:
        return
    prepare = getattr(task, "prepare", None)
    for prompt in prompts:
        text = prepare(prompt) if isinstance(prompt, str) and prepare is not None else prompt
        if isinstance(text, str) and len(text.encode()) < context - SPECIAL:
            continue  # a token has a byte at least: most prompts need not be read twice
        from babblegraph.lm.prompts import encoded

        tokens = len(encoded(text, generator.tokenizer, generator.vocabulary)[1])
        if tokens >= context:
            raise BadInput(
                f"a prompt must leave room in the model's context of {context} tokens, got {tokens} in the one that "
                f"begins {question_of(prompt)[:BEGINNING]!r}: shorten it or leave it out"
            )
