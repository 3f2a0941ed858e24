"""Eight conversation tasks fall into four contexts, each with the empathy people want there.

The four contexts are published with the empathetic expert adapters; the desired levels are our
proposal, to be replaced by levels measured on rated conversations when there are any.
"""

import dataclasses

from hen_jax.empathy.labels import Words


@dataclasses.dataclass(frozen=True)
class Context:
    """A kind of conversation that calls for its own amount of empathy."""

    tasks: tuple[str, ...]
    level: float  # desired empathy in [0, 1]
    words: Words


CONTEXTS: dict[str, Context] = {
    "distress": Context(
        tasks=("distressing_situation", "social_personal_situation"),
        level=0.9,
        words=Words("a distressing, social or personal situation", "痛苦、人际或私人的处境"),
    ),
    "career": Context(
        tasks=("work_issue", "career_development", "self_improvement"),
        level=0.6,
        words=Words("a work issue, a career or self-improvement", "工作难题、职业或自我提升"),
    ),
    "learning": Context(
        tasks=("learning_skills",),
        level=0.45,
        words=Words("learning a skill", "学习一项本领"),
    ),
    "writing": Context(
        tasks=("work_assignment", "help_with_writing"),
        level=0.2,
        words=Words("a work assignment or help with writing", "工作任务或写作帮助"),
    ),
}
"""In the order of expert indices: expert `e` belongs to the `e`-th context."""

CONTEXT_OF_TASK: dict[str, str] = {
    task: name for name, context in CONTEXTS.items() for task in context.tasks
}
"""`CONTEXT_OF_TASK["work_issue"] == "career"`."""
