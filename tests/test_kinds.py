"""Inputs and results as bytes: typed on both sides, and clear about what does not fit."""

import pytest
from pydantic import BaseModel

from taskdist.core.errors import BadField
from taskdist.kinds import InvalidInput, Kind, WrongResult


class Prompt(BaseModel):
    text: str
    max_tokens: int = 256


class Completion(BaseModel):
    text: str


INFER: Kind[Prompt, Completion] = Kind("infer", Prompt, Completion)
RAW: Kind[bytes, bytes] = Kind("raw", bytes, bytes)


def test_an_input_comes_out_as_it_went_in() -> None:
    prompt = Prompt(text="hi", max_tokens=3)
    assert INFER.decode_input(INFER.encode_input(prompt)) == prompt
    assert RAW.decode_input(RAW.encode_input(b"\x00\xff")) == b"\x00\xff"


def test_a_result_comes_out_as_it_went_in() -> None:
    assert INFER.decode_result(INFER.encode_result(Completion(text="HI"))).text == "HI"
    assert RAW.decode_result(RAW.encode_result(b"\x00")) == b"\x00"
    nothing: Kind[bytes, None] = Kind("nothing", bytes, None)
    assert nothing.decode_result(nothing.encode_result(None)) is None


def test_every_bad_field_of_an_input_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        INFER.decode_input(b'{"max_tokens": "many"}')
    assert [field for field, _ in caught.value.fields] == ["data.text", "data.max_tokens"]
    assert caught.value.fields[0] == BadField("data.text", "field required")


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1", b"7"])
def test_data_that_is_no_such_input_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^data: "):
        INFER.decode_input(data)


def test_an_input_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^data: is str; allowed: bytes$"):
        RAW.encode_input("text")  # type: ignore[arg-type]  # what a user without a type checker does
    with pytest.raises(InvalidInput, match=r"^data: "):
        INFER.encode_input(Completion(text="hi"))  # type: ignore[arg-type]  # likewise


def test_a_result_of_another_type_is_named_and_not_converted() -> None:
    with pytest.raises(WrongResult, match=r"^infer returned dict; allowed: Completion"):
        INFER.encode_result({"text": "HI"})  # type: ignore[arg-type]  # what a handler may return
    with pytest.raises(WrongResult, match=r"^raw returned str; allowed: bytes$"):
        RAW.encode_result("HI")  # type: ignore[arg-type]  # likewise


def test_the_schema_of_an_input_is_json_schema() -> None:
    schema = INFER.input_schema
    assert schema is not None
    assert schema["required"] == ["text"]
    assert RAW.input_schema is None
