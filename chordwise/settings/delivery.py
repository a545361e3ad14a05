"""Delivery: who is told when a run ends, and where its answers are put."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, model_validator

from chordwise.domain import webhook_signatures
from chordwise.domain.export_formats import ExportFormat
from chordwise.settings import addresses
from chordwise.settings.sections import Section


class DeliverySettings(Section):
    """The table `[delivery]`; the scheduler delivers, so its settings count."""

    webhook_url: SecretStr = Field(
        default=SecretStr(""), description="Told when a run ends; empty: nobody is."
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="Signs it; 24 to 64 bytes in base64, after whsec_."
    )
    allow_http: bool = Field(default=False, description="Let webhook_url begin with http://.")
    allow_private_addresses: bool = Field(
        default=False, description="Let webhook_url lead into this machine or its network."
    )
    folder: Path | None = Field(
        default=None, description="Where a finished run's answers go, relative to chordwise.toml."
    )
    format: ExportFormat = Field(default=ExportFormat.JSONL, description="Of that file.")
    timeout_seconds: PositiveFloat = Field(default=15, description="Of one request, in total.")
    max_attempts: PositiveInt = 12
    first_wait_seconds: PositiveFloat = Field(
        default=10, description="After a failure; each further wait is twice as long."
    )
    max_wait_seconds: PositiveFloat = 3600

    @model_validator(mode="after")
    def check_webhook(self) -> DeliverySettings:
        """Refuse an address that nobody can be told at, and one without a signature."""
        url = self.webhook_url.get_secret_value()
        if not url:
            return self
        if not url.isascii():
            raise ValueError("webhook_url is not an address that begins with https://")
        try:
            addresses.check_web(url)
        except ValueError as error:
            raise ValueError(f"webhook_url: {error}") from None
        if url.strip().lower().startswith("http://") and not self.allow_http:
            raise ValueError("webhook_url begins with http://: take https, or set allow_http")
        try:
            webhook_signatures.key_of(self.webhook_secret.get_secret_value())
        except ValueError as error:
            raise ValueError(f"webhook_secret is {error}: openssl rand -base64 32") from None
        return self
