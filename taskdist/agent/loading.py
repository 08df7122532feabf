"""Finds the registry that an agent is told to run."""

import importlib
import os
import sys
import traceback
from types import ModuleType

from taskdist.agent.definition import RegistryError
from taskdist.agent.registry import Registry
from taskdist.settings import SettingsError

OPTION = "--handlers"


def load(text: str) -> Registry:
    """The registry MODULE:NAME, from the current directory or from what is installed.

    Raises:
        SettingsError: there is none; one line, with file and line where they are known.
    """
    name, _, attribute = text.partition(":")
    if not (name and attribute):
        raise SettingsError(f"{OPTION} {text}: write MODULE:REGISTRY, such as tasks:tasks")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(name, text)
    found = getattr(module, attribute, None)
    if not isinstance(found, Registry):
        there = [key for key, one in vars(module).items() if isinstance(one, Registry)]
        has = f"its registries: {', '.join(there)}" if there else "it has no registry"
        what = f"{attribute} is {type(found).__name__}, not a taskdist.Registry"
        if not hasattr(module, attribute):
            what = f"there is no {attribute}"
        raise SettingsError(f"{OPTION} {text}: in {module.__file__} {what}; {has}")
    if not len(found):
        raise SettingsError(f"{OPTION} {text}: {attribute} in {module.__file__} has no handlers")
    return found


def _import(name: str, text: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RegistryError:
        raise  # It says where.
    except (Exception, SystemExit) as error:  # Of people's code, and where it is.
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            reason = f"no module {error.name} in {os.getcwd()} or among what is installed"
        else:
            last_line = str(error).strip().partition("\n")[0]
            reason = f"{_place(error)}{type(error).__name__}: {last_line}"
        raise SettingsError(f"{OPTION} {text}: {reason}") from error


def _place(error: BaseException) -> str:
    """The last statement of people's that failed, as file:line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_ours(frame.filename)]
    # Into a library a statement of theirs led; it is the one to look at.
    near = [frame for frame in theirs if frame.filename.startswith(os.getcwd())] or theirs
    return f"{near[-1].filename}:{near[-1].lineno}: " if near else ""


def _is_ours(filename: str) -> bool:
    inner = (os.path.dirname(__file__), importlib.__file__)
    return filename.startswith(("<frozen", *inner))
