"""Make settings.md from the settings: ``python docs/reference/make_settings.py > docs/reference/settings.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from s3seg.app.settings import Settings


def page() -> str:
    """A row for every variable."""
    rows = "\n".join(_row(name, field) for name, field in Settings.model_fields.items())
    return (
        "# Settings\n\n"
        "Every setting of the services, read from the environment or from a file `.env` in the working folder;\n"
        "made by `docs/reference/make_settings.py`. A secret (🔒) is shown in no log and no error.\n"
        "`s3seg doctor --services` connects to each part and names the setting that is wrong.\n\n"
        "| Variable | By default | |\n|---|---|---|\n"
        f"{rows}\n"
    )


def _row(name: str, field: FieldInfo) -> str:
    secret = " 🔒" if "SecretStr" in str(field.annotation) else ""
    description = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
    names = " or ".join(f"`{variable}`" for variable in _variables(name, field))
    return f"| {names} | {_default(field)} | {description}{secret} |"


def _variables(name: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [f"S3SEG_{name.upper()}"]


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value == () or isinstance(value, SecretStr):
        return ""
    if isinstance(value, Path):
        return f"`{str(value).replace(str(Path.home()), '~', 1)}`"
    return f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
