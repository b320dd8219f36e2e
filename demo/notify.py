"""GOV.UK Notify, as far as it can be played: it takes mails, and sends none.

Facts: https://docs.notifications.service.gov.uk/rest-api.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from email.message import Message
from typing import Any

from receiver import Refused

PATH = "/v2/notifications/email"
TOKEN_SECONDS = 30
UUID_CHARACTERS = 36


class Notify:
    """Takes what has a token of the service with this API key: its name, the service's id and the secret."""

    def __init__(self, api_key: str) -> None:
        self.service = api_key[-2 * UUID_CHARACTERS - 1 : -UUID_CHARACTERS - 1]
        self.secret = api_key[-UUID_CHARACTERS:]
        self.mails: list[dict[str, Any]] = []

    def take(self, headers: Message, body: bytes) -> None:
        """A request for a mail."""
        scheme, _, token = (headers.get("authorization") or "").partition(" ")
        if scheme != "Bearer":
            raise Refused("no token")
        self.check(token)
        self.mails.append(json.loads(body))

    def check(self, token: str) -> None:
        """That it is a JWT, signed with the secret, by this service, just now."""
        head, claims, signature = token.split(".")
        expected = hmac.new(self.secret.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(expected, decoded(signature)):
            raise Refused("the token's signature is wrong")
        if json.loads(decoded(head)) != {"typ": "JWT", "alg": "HS256"}:
            raise Refused("the token is no JWT with HS256")
        said = json.loads(decoded(claims))
        if said.keys() != {"iss", "iat"} or said["iss"] != self.service:
            raise Refused("the token is another service's")
        if abs(time.time() - said["iat"]) > TOKEN_SECONDS:
            raise Refused("the token is too old")


def decoded(text: str) -> bytes:
    """Base64 for URLs, without its padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
