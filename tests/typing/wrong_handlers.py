"""What type checkers refuse: each line that says so is an error to both."""

from taskdist import AsyncClient, Client
from tests.typing.handlers import Completion, Prompt, count, infer, kind_of, raw, some_context

infer.encode_input(Completion(text=""))  # wrong
infer.encode_result(Prompt(text=""))  # wrong
kind_of(count)  # wrong
infer(Completion(text=""), some_context())  # wrong
infer(Prompt(text=""))  # wrong
raw("text")  # wrong
number: str = count(Prompt(text=""), some_context())  # wrong


async def submits(client: AsyncClient) -> None:
    await client.submit(infer, Completion(text=""))  # wrong
    await client.submit(infer, Prompt(text=""), tier=1)  # wrong
    await client.submit_many(infer, [Completion(text="")])  # wrong
    infer(await (await client.submit(infer, Prompt(text=""))).result(), some_context())  # wrong


def submits_and_waits(client: Client) -> None:
    client.submit(infer, Completion(text=""))  # wrong
    raw(client.submit(infer, Prompt(text="")).result())  # wrong
