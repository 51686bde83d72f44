"""``s3seg db``: the schema in a Supabase project."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from s3seg.adapters.supabase.migrations import DatabaseConfig
    from s3seg.app.settings import Settings

app = typer.Typer(help="Set up the database of a Supabase project (S3SEG_DATABASE_URL).", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Apply the migrations that the database lacks, and tell it the settings; safe to repeat."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings
    from s3seg.errors import S3segError

    try:
        settings = Settings()
        new = migrations.migrate(_database_url(settings), _config(settings))
    except S3segError as err:
        _end(err)
    for migration in new:
        typer.echo(f"applied {migration.version} {migration.name}")
    typer.echo(f"the database is up to date; objects are addressed as {settings.public_base_url.rstrip('/')}/...")


@app.command()
def status() -> None:
    """Say which migrations the database has; ends with 1 if it lacks one."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings
    from s3seg.errors import S3segError

    try:
        have = migrations.applied(_database_url(Settings()))
    except S3segError as err:
        _end(err)
    known = migrations.all_migrations()
    for migration in known:
        typer.echo(f"{'applied' if migration.version in have else 'missing'} {migration.version} {migration.name}")
    if any(migration.version not in have for migration in known):
        typer.echo("run: s3seg db migrate", err=True)
        raise typer.Exit(1)


@app.command()
def sql() -> None:
    """Print all of it as one script, for the SQL editor of a new project."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings
    from s3seg.errors import S3segError

    try:
        typer.echo(migrations.as_sql(_config(Settings())))
    except S3segError as err:
        _end(err)


def _database_url(settings: Settings) -> str:
    from s3seg.errors import ConfigurationError

    if settings.database_url is None:
        raise ConfigurationError(
            "S3SEG_DATABASE_URL is not set; the address of a project is under Connect in its dashboard, or run "
            "`s3seg db sql` and paste what it prints into the SQL editor"
        )
    return settings.database_url.get_secret_value()


def _config(settings: Settings) -> DatabaseConfig:
    from s3seg.adapters.supabase.migrations import DatabaseConfig
    from s3seg.errors import ConfigurationError

    if "public_base_url" not in settings.model_fields_set:
        raise ConfigurationError(
            "S3SEG_PUBLIC_BASE_URL is not set; the database stores with each image what its address begins with, so "
            "it must be known before: the bucket's domain, or https://<your edge>/files"
        )
    return DatabaseConfig(
        public_base_url=settings.public_base_url,
        welcome_credits=settings.welcome_credits,
        deadline_s=settings.task_deadline_s,
        max_attempts=settings.max_attempts,
        rates=settings.rates,
    )


def _end(err: Exception) -> NoReturn:
    typer.echo(f"error: {err}", err=True)
    raise typer.Exit(1) from None
