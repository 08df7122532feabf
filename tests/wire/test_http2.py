"""What is changed in the libraries under grpclib changes nothing that anyone sees."""

import hyperframe.frame
import pytest

from taskdist.wire import http2


@pytest.mark.parametrize("data", [None, b"", b"x", b"x" * 10, b"x" * 11, bytes(range(256))])
def test_a_frame_is_shown_as_before(data: bytes | None) -> None:
    assert hyperframe.frame._raw_data_repr is not http2._shown
    assert hyperframe.frame._raw_data_repr(data) == http2._shown(data)
