"""The content security policy of our pages: which inline style and script a browser may take, by their hashes."""

from base64 import b64encode
from hashlib import sha256


def csp_hash(text: str) -> str:
    """How a policy names an inline style or script. Source: W3C CSP level 3, section 2.3.1."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
