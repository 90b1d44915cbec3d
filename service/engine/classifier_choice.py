"""Whether the classifier of a stage looks at an image. Pure."""

from service.engine.member import Kind, Member
from service.engine.stage_prices import ModelPrices


def is_classified(
    member: Member, prices: ModelPrices, now: float, *, target: int | None = None
) -> bool:
    """Return whether an image's answer at the stage it waits for is worth its classifier's time.

    Where its policy has not decided: the first answer that is owed is always worth it, and so is
    the deepest. One between is where it may well remain the last, because those to come do not fit
    comfortably, or because others wait and this is the exit for whose sake it runs.

    Args:
        member: One that waits.
        prices: Of its model.
        now: The present instant.
        target: For which exit's sake it runs while others wait; None where nobody else does.
    """
    if member.classify is not None:
        return member.classify
    stage_index = member.stage.stage_index
    if member.kind is Kind.MANDATORY:
        return stage_index >= member.mandatory_exit
    if stage_index >= member.last_exit:
        return True
    goal = member.last_exit if target is None else target
    if goal <= stage_index:
        return True
    return now + prices.paced_s[stage_index][goal] > member.answer_by
