"""What type checkers refuse: each line that says so is an error to both."""

from tests.typing.handlers import Completion, Prompt, count, infer, kind_of, raw, some_context

infer.encode_input(Completion(text=""))  # wrong
infer.encode_result(Prompt(text=""))  # wrong
kind_of(count)  # wrong
infer(Completion(text=""), some_context())  # wrong
infer(Prompt(text=""))  # wrong
raw("text")  # wrong
number: str = count(Prompt(text=""), some_context())  # wrong
