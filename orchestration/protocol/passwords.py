"""Hide the passwords of URLs in a text: of exceptions, log lines, failures and errors of the command line.

Libraries quote the URL that they could not use, whole or as the arguments of a client. The forms here are those that redis-py,
kombu, amqp, httpx and urllib write: `scheme://user:password@host`, the same in percent encoding, `?password=…` and similar
names, and `password='…'` in the text of an object.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_NAMES = (
    r"(?:password|passwd|passphrase|pwd|ssl_password|sasl_password|client_secret|secret(?:_access)?_key|secret|access_token|"
    r"auth_token|token|api[-_]?key|apikey|signature|sig|x-amz-signature|x-amz-security-token|x-goog-signature)"
)

_FORMS = (
    # In a URL, up to the last @: a password may hold @, / and ? if its author did not encode them.
    (re.compile(r"(?<=://)([^\s/@:'\"]*):[^\s'\"]*(?=@)"), rf"\1:{HIDDEN}"),
    (re.compile(r"(?i)(%3A%2F%2F(?:(?!%3A|%40)[^\s&'\"])*%3A)[^\s&'\"]*?(?=%40)"), rf"\1{HIDDEN}"),
    # In a query. The value ends where the next one begins.
    (re.compile(rf"(?i)(?<=[?&;]){_NAMES}=[^\s&;'\"#)\]}}>,]*"), None),
    (re.compile(rf"(?i)%(?:3F|26){_NAMES}%3D(?:(?!%26)[^\s&'\"])*"), None),
    # In the text of an object: password='…', 'password': '…', password=…
    (re.compile(rf"(?i)\b{_NAMES}['\"]?\s*[:=]\s*(?:b?'[^']*'|b?\"[^\"]*\")"), None),
    (re.compile(rf"(?i)(?<![?&;\w]){_NAMES}=[^\s&;,'\")\]}}>]+"), None),
    # In a header.
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\",]+"), rf"\1{HIDDEN}"),
)

_MAY_HOLD_ONE = re.compile(r"(?i)://|%3A%2F%2F|pass|pwd|secret|token|key|sig|authorization")


def hide_passwords(text: str) -> str:
    """Return the text with `***` in the place of each password. The name before a password stays."""
    if not _MAY_HOLD_ONE.search(text):
        return text
    for form, replacement in _FORMS:
        text = form.sub(_keep_name if replacement is None else replacement, text)
    return text


def _keep_name(found: re.Match[str]) -> str:
    """Hide the value after the name and its sign."""
    name = re.match(r"(?i)(?:%3F|%26)?[\w-]+?(?:%3D|['\"]?\s*[:=]\s*)", found[0])
    quote = found[0][-1] if found[0][-1] in "'\"" else ""
    return f"{name[0] if name else ''}{quote}{HIDDEN}{quote}"
