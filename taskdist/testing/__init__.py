"""The testing kit: a distributor and agents in a test's own event loop, in virtual time.

    async def test_a_failed_task_is_tried_again(playground: Playground) -> None:
        playground.agent(tasks)
        handle = await playground.client.submit(infer, Prompt(text="hi"))
        assert (await handle.result()).text == "HI"

The fixture `playground` comes with `pip install 'taskdist[testing]'`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskdist.testing.playground import PlayedAgent, Playground, virtual_time

__all__ = ["PlayedAgent", "Playground", "virtual_time"]


def __getattr__(name: str) -> Any:
    # Late, because pytest loads the plugin beside this in every project that has taskdist.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taskdist.testing import playground

    return getattr(playground, name)
