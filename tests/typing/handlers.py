"""What type checkers make of a registry: `test_typing.py` has them read this."""

from collections.abc import Coroutine
from typing import Any, assert_type

from pydantic import BaseModel

from taskdist import AsyncClient, Client, Context, Handle, Handler, Registry
from taskdist.kinds import Kind


class Prompt(BaseModel):
    text: str


class Completion(BaseModel):
    text: str


tasks = Registry()


@tasks.handler
async def infer(prompt: Prompt, ctx: Context) -> Completion:
    await ctx.progress(0.5, "decoding")
    ctx.progress(1)
    return Completion(text=prompt.text)


@tasks.handler(timeout="30s", max_retries=3)
async def infer_more(prompt: Prompt) -> list[Completion]:
    return [await infer(prompt, some_context())]


@tasks.handler
def count(prompt: Prompt, ctx: Context) -> int:
    return 0 if ctx.cancelled else len(prompt.text)


@tasks.handler(name="raw", process=True)
def raw(data: bytes) -> bytes:
    return data


@tasks.on_start
async def load() -> None:
    await infer_more(Prompt(text=""))


@tasks.on_start(process=True)
def load_in_process() -> None: ...


copy = tasks.command("copy", ["cp", "{text}"], input=Prompt)


def some_context() -> Context:
    raise NotImplementedError


def kind_of(kind: Kind[Prompt, Completion]) -> None: ...


def handler_of(handler: Handler[Prompt, Completion]) -> None: ...


kind_of(infer)
handler_of(infer)
assert_type(infer.decode_input(b""), Prompt)
assert_type(infer.decode_result(b""), Completion)
assert_type(infer_more.decode_input(b""), Prompt)
assert_type(infer_more.decode_result(b""), list[Completion])
assert_type(count.decode_input(b""), Prompt)
assert_type(count.decode_result(b""), int)
assert_type(raw.decode_input(b""), bytes)
assert_type(raw.decode_result(b""), bytes)
assert_type(copy, Kind[Prompt, bytes])
# Each can still be called as the function that it is.
_: Coroutine[Any, Any, Completion] = infer(Prompt(text=""), some_context())
assert_type(count(Prompt(text=""), some_context()), int)
assert_type(raw(b""), bytes)


async def submits(client: AsyncClient) -> None:
    handle = await client.submit(infer, Prompt(text=""), tier="paid", time="90s")
    assert_type(handle, Handle[Completion])
    assert_type(await handle.result(timeout=5), Completion)
    assert_type(await (await client.submit(count, Prompt(text=""))).result(), int)
    assert_type(await client.submit("infer", {"text": ""}), Handle[bytes])
    async for done in client.as_completed(await client.submit_many(infer, [Prompt(text="")])):
        assert_type(await done.result(), Completion)


def submits_and_waits(client: Client) -> None:
    assert_type(client.submit(infer, Prompt(text="")).result(), Completion)
    assert_type(client.submit(copy, Prompt(text="")).result(), bytes)
    for done in client.as_completed(client.submit_many(infer, [Prompt(text="")])):
        assert_type(done.result(), Completion)
