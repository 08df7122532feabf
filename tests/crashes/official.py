"""The official client, made from the contract's descriptors: every rpc by its name."""

from collections.abc import Iterator
from typing import Any, Self

import grpc
from google.protobuf.message_factory import GetMessageClass

from tests.crashes.contract import RPCS
from tests.support.processes import LIMIT_S


class Official:
    """Calls of one distributor.

    Args:
        address: its host:port.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        # Once for all: a call that waited for the connection would wait on after its end.
        grpc.channel_ready_future(self._channel).result(LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def call(self, rpc: str, **fields: Any) -> Any:
        """The answer of a unary rpc.

        Raises:
            grpc.RpcError: it has none.
        """
        return self.begin(rpc, **fields).result()

    def begin(self, rpc: str, **fields: Any) -> Any:
        """The same, as a future."""
        ask = _open(self._channel.unary_unary, rpc)
        return ask.future(_message(rpc, fields), timeout=LIMIT_S)

    def watch(self, rpc: str, **fields: Any) -> Iterator[Any]:
        """The answers of an rpc that has many."""
        ask = _open(self._channel.unary_stream, rpc)
        answers: Iterator[Any] = ask(_message(rpc, fields), timeout=LIMIT_S)
        return answers

    def talk(self, rpc: str, said: Iterator[dict[str, Any]]) -> Iterator[Any]:
        """The answers of an rpc that is asked many times."""
        ask = _open(self._channel.stream_stream, rpc)
        messages = (_message(rpc, fields) for fields in said)
        answers: Iterator[Any] = ask(messages, timeout=LIMIT_S)
        return answers


def _message(rpc: str, fields: dict[str, Any]) -> Any:
    return GetMessageClass(RPCS[rpc].input_type)(**fields)


def _open(kind: Any, rpc: str) -> Any:
    method = RPCS[rpc]
    return kind(
        f"/{method.containing_service.full_name}/{rpc}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
