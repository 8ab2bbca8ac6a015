"""The libraries' remarks on a long prompt, left out: the page says it in a line; see `cut` and `cut_prompts`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

REMARKS = ("part of your input was truncated", "Token indices sequence length is longer")


@contextmanager
def no_truncation_warnings() -> Iterator[None]:
    """Without these remarks, which are a screenful in red."""
    handlers = [
        each for name in ("diffusers", "transformers") for each in logging.getLogger(name).handlers
    ]
    try:
        for handler in handlers:
            handler.addFilter(_no_remark)
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_no_remark)


def _no_remark(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in REMARKS)
