"""What a handler returns is printed as JSON that any reader takes."""

import json

import pytest

from taskdist.cli.output import result_dict


@pytest.mark.parametrize(
    ("result", "printed"),
    [
        (b'{"a": [1, null]}', {"result": {"a": [1, None]}}),
        (b"plain", {"result": "plain"}),
        (b"", {"result": ""}),
        (b"NaN", {"result": "NaN"}),
        (b"1e999", {"result": "1e999"}),
        (b"[" * 100_000, {"result": "[" * 100_000}),
        (b"\xff", {"result_base64": "/w=="}),
    ],
    ids=["object", "text", "nothing", "nan", "infinity", "deep", "bytes"],
)
def test_a_result_is_json_or_text_or_base64(result: bytes, printed: dict[str, object]) -> None:
    assert result_dict(result) == printed
    json.dumps(result_dict(result), allow_nan=False)


def test_half_a_character_can_be_printed() -> None:
    assert json.dumps(result_dict(b'"\\ud800"')) == '{"result": "\\ud800"}'
