"""``s3seg db``: the database schema of a Supabase project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from s3seg.commands.errors import ERROR

if TYPE_CHECKING:
    from s3seg.adapters.supabase.migrations import DatabaseConfig
    from s3seg.app.settings import Settings

app = typer.Typer(help="Set up the database of a Supabase project (S3SEG_DATABASE_URL).", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Apply missing migrations, and store the settings that the database uses. Safe to repeat."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings

    settings = Settings()
    for migration in migrations.migrate(_database_url(settings), _config(settings)):
        typer.echo(f"applied {migration.version} {migration.name}")
    typer.echo(f"the database is up to date; object URLs begin with {settings.public_base_url.rstrip('/')}/")


@app.command()
def status() -> None:
    """List migrations as applied or missing. Exits with 1 if one is missing."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings

    applied = migrations.applied(_database_url(Settings()))
    known = migrations.all_migrations()
    for migration in known:
        typer.echo(f"{'applied' if migration.version in applied else 'missing'} {migration.version} {migration.name}")
    if any(migration.version not in applied for migration in known):
        typer.echo("run: s3seg db migrate", err=True)
        raise typer.Exit(ERROR)


@app.command()
def sql() -> None:
    """Print the whole schema as one script, for the SQL editor of a new project."""
    from s3seg.adapters.supabase import migrations
    from s3seg.app.settings import Settings

    typer.echo(migrations.as_sql(_config(Settings())))


def _database_url(settings: Settings) -> str:
    from s3seg.errors import ConfigurationError

    if settings.database_url is None:
        raise ConfigurationError(
            "S3SEG_DATABASE_URL is not set; copy it from Connect in the project's dashboard, or run `s3seg db sql` "
            "and paste its output into the SQL editor"
        )
    return settings.database_url.get_secret_value()


def _config(settings: Settings) -> DatabaseConfig:
    from s3seg.adapters.supabase.migrations import DatabaseConfig
    from s3seg.errors import ConfigurationError

    if "public_base_url" not in settings.model_fields_set:
        raise ConfigurationError(
            "S3SEG_PUBLIC_BASE_URL is not set; the database stores it in the URL of every image, so set it first: "
            "to the bucket's domain, or to https://<your edge>/files"
        )
    return DatabaseConfig(
        public_base_url=settings.public_base_url,
        welcome_credits=settings.welcome_credits,
        deadline_s=settings.task_deadline_s,
        max_attempts=settings.max_attempts,
        rates=settings.rates,
        retention_s=settings.retention_s,
    )
