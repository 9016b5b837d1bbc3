"""The command line's frame: which commands there are, and how an error becomes one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from saddlescape import __version__
from saddlescape.cli import streams
from saddlescape.disk import reason
from saddlescape.errors import InputError, near
from saddlescape.parallel.launch import ReportedElsewhere, launched

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130

GROUPS = {
    "Train": {
        "train": "Train a classifier on a named data set, a folder of images, or features.",
        "tune": "Search rho, learning rate and weight decay on held-out images.",
        "methods": "List every loss, optimiser and method, with source and cost.",
        "datasets": "List data sets; check a copy before a long run.",
    },
    "Use": {
        "evaluate": "Score a run: accuracy, precision, recall, F1 per class.",
        "predict": "Classify images, folders, or rows of features.",
        "export": "Write a model that runs without saddlescape (torch.export, ONNX).",
    },
    "Understand": {
        "curvature": "Measure the curvature of each class's loss, with error bars.",
        "surface": "Draw losses around the trained weights, class by class.",
        "escape": "Leave a saddle point with SGD, PGD, SAM and Momentum-SAM.",
        "report": "Make one HTML page of runs and all that was measured of them.",
    },
    "Compare": {
        "reproduce": "Train the rows of the paper's tables, beside the published numbers.",
        "demo": "Train with and without SAM on digits, and see each class's curvature, in two minutes.",
    },
}
"""Each command has a file of its name in this folder, which holds a function or App of that name."""
COMMANDS = tuple(name for group in GROUPS.values() for name in group)
EXAMPLES = """Examples:
  saddlescape train photos/ --out runs/photos
  saddlescape reproduce digits-lt --methods ce,ce+sam --out runs/table"""


def build(listing: bool = False) -> App:
    """All commands, each imported when it is called; ``listing``: with one line on each and none imported."""
    app = App(
        name="saddlescape",
        version=__version__,
        help="Train long-tailed classifiers, see the class-wise loss landscape, and escape its saddle points.",
        help_epilogue=EXAMPLES,
        help_format="plaintext",
        default_parameter=Parameter(json_list=False, json_dict=False),  # "[1] x.png" is the name of a file
    )
    for order, (title, commands) in enumerate(GROUPS.items()):
        group = Group(title, sort_key=order)
        for place, (name, line) in enumerate(commands.items()):
            about = {"help": line} if listing else {}  # else the help of its own
            app.command(f"saddlescape.cli.{name}:{name}", name=name, group=group, sort_key=place, **about)
    return app


def main(tokens: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 done in part, 2 bad input (one line on stderr), 130 interrupted."""
    streams.open_all()
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    code = run(arguments, debug)
    try:
        streams.close()
    except streams.OutputError as error:
        code = code or _cannot_print(error, debug)
    sys.exit(code)


def _at_home(argument: str) -> str:
    """``~`` where a path begins with it; shells leave it as it is after ``--option=``."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (os.path.expanduser(value) if value.startswith("~") else value)  # noqa: PTH111


def run(arguments: Sequence[str], debug: bool = False) -> int:
    mute = False  # whether a mistake on the command line is another process's to print
    try:
        launch = launched()
        if launch is not None:
            from saddlescape.cli.processes import check_command

            mute = launch.rank > 0
            check_command(arguments, launch)
            mute = False
        arguments = [_at_home(argument) for argument in arguments]
        listing = not arguments or arguments[0] in ("--help", "-h")
        build(listing)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except ReportedElsewhere as error:
        stopped = isinstance(error.__cause__, KeyboardInterrupt) or type(error.__cause__).__name__ == "Interrupted"
        return INTERRUPTED if stopped else BAD_INPUT
    except (CycloptsError, InputError) as error:
        if mute or (isinstance(error, CycloptsError) and launch is not None and launch.rank > 0):
            return BAD_INPUT
        return _complain(error if isinstance(error, InputError) else _in_one_line(error), BAD_INPUT, debug)
    except KeyboardInterrupt as error:
        return _complain("interrupted" if not debug else error, INTERRUPTED, debug)
    except streams.OutputError as error:
        return _cannot_print(error, debug)
    except SystemExit as error:
        return int(error.code or 0)
    except MemoryError as error:
        return _complain(f"out of memory ({error}); use a smaller --batch-size or --image-size", BAD_INPUT, debug)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            return _complain(
                "interrupted; a checkpoint was written: run the same command again to go on", INTERRUPTED, False
            )
        if isinstance(error, OSError):
            place = error.filename or "a file cannot be read or written"
            return _complain(f"{os.fsdecode(place)}: {reason(error)}", BAD_INPUT, debug)
        if debug:
            raise
        kind = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return _complain(
            f"unexpected {kind}; run again with --debug for the whole story and report it", BAD_INPUT, False
        )
    return DONE


def _in_one_line(error: CycloptsError) -> InputError:
    """A mistake in the words of a command: what is wrong with which word, and how to repair it."""
    command = " ".join(error.command_chain or ())
    word = next(iter(error.unused_tokens or ()), "")
    text = str(error).strip().rstrip(".")
    if isinstance(error, UnusedCliTokensError):
        below = [name for name in error.app or () if not name.startswith("-")]
        wrong = f"unknown command {word!r}; {near(word, below)}" if below else f"{word!r} is one argument too many"
        text = f"{command}: {wrong}"
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        text = f"{command} needs {error.argument.name}"
    elif isinstance(error, CoercionError):
        text = text.replace("unable to convert ", "").replace(" into ", " is no ")
        for kind, words in {"int": "not a whole number", "float": "not a number", "bool": "neither yes nor no"}.items():
            text = re.sub(rf"is no {kind}\b.*", f"is {words}", text)
    elif isinstance(error, UnknownCommandError):
        text = f"unknown option {word}" if word.startswith("-") else f"unknown command {word!r}; {near(word, COMMANDS)}"
    repaired = "; " in text or "Did you mean" in text
    return InputError(text if repaired else f"{text}; see {' '.join(('saddlescape', command)).strip()} --help")


def _cannot_print(error: streams.OutputError, debug: bool) -> int:
    if isinstance(error.cause, BrokenPipeError):  # whoever reads the output, such as head, has had enough
        return DONE
    return _complain(f"standard output: {reason(error.cause)}", BAD_INPUT, debug)


def _complain(error: BaseException | str, code: int, debug: bool) -> int:
    if debug and isinstance(error, BaseException):
        traceback.print_exception(error)
    line = " ".join(str(error).split())
    print(f"saddlescape: {line}", file=sys.stderr)
    return code
