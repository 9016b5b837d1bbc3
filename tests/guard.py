"""Stop the tests early where the environment would make them fail for reasons of its own."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    if importlib.util.find_spec("torchvision") is not None:
        try:
            import torchvision  # noqa: F401
        except Exception as error:
            print(
                f"guard: torchvision is installed but does not import beside this torch ({error}); packages that look "
                "for it by name would break: pip uninstall torchvision",
                file=sys.stderr,
            )
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
