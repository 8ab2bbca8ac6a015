"""A filter for what the libraries print about long prompts; our own pages say it in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = ("part of your input was truncated", "Token indices sequence length is longer")


@contextmanager
def no_truncation_warnings() -> Iterator[None]:
    """Hide the libraries' warnings about long prompts, which fill a screen in red."""
    handlers = logging.getLogger("diffusers").handlers + logging.getLogger("transformers").handlers
    try:
        for handler in handlers:
            # on the handlers: a logger's filter misses what its children log
            handler.addFilter(_is_other_message)
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_other_message)


def _is_other_message(record):
    return not any(text in record.getMessage() for text in WARNINGS)
