"""``s3seg login``, ``s3seg logout`` and ``s3seg whoami``: a sign-in to a service, kept on this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.escaping import one_line

if TYPE_CHECKING:
    from s3seg.api.additions import MeResponse
    from s3seg.client.signin import SessionStore, StoredSession
    from s3seg.client.signin.discovery import Project

_BROWSER_TIMEOUT_S = 300.0
_MOST_SECRET_CHARS = 10_000

Service = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]", help="Address of the service; by default S3SEG_URL, or else the only one you are signed in to."
    ),
]


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the service.", envvar="S3SEG_URL")],
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="Your email address; asked for if absent.")] = None,
    code: Annotated[bool, typer.Option("--code", help="Get a one-time code by email instead of a password.")] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Sign in with another account of yours, such as GitHub's, in the browser.")
    ] = False,
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which one, with --browser; if absent, the only one that the service has."),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Keep an access token that you were given; it is asked for.")
    ] = False,
    expected: Annotated[
        str | None,
        typer.Option(
            "--project", metavar="URL", help="The Supabase project of the service, to be asked nothing. For scripts."
        ),
    ] = None,
) -> None:
    """Sign in to a service, and stay signed in on this machine.

    Passwords, codes and tokens are asked for without showing them, or read from standard input: they are never part of
    the command line. What stays signed in is kept in the system's keyring, or in a file that only you can read.
    """
    from s3seg.client.signin import SessionStore
    from s3seg.client.signin.discovery import discover
    from s3seg.client.signin.sessions import service_of
    from s3seg.errors import InvalidRequestError

    if code + (browser or provider is not None) + token > 1:
        raise InvalidRequestError("--code, --browser and --token exclude each other")
    service, store = service_of(url), SessionStore()
    project = None if token else discover(service)
    if project is None:
        if code or browser or provider is not None or email is not None or expected is not None:
            raise InvalidRequestError(
                f"{service} has no sign-in of its own: its operator hands out access tokens; if you have one, keep it "
                f"with: s3seg login --token {service}"
            )
        session = _with_token(service, store)
    else:
        _confirm_project(service, project, store, expected)
        if browser or provider is not None:
            session = _in_browser(service, project, store, provider)
        else:
            session = _by_email(service, project, store, email or _ask("Email: "), code=code)
    _report(session, store)


def _confirm_project(service: str, project: Project, store: SessionStore, expected: str | None) -> None:
    """Ask whether the project that a service names is its own, unless the user has said so, or has signed in there.

    A service that names the project of another one would get a token with which it could act there as the user.

    Raises:
        typer.Abort: The answer is no.
        InvalidRequestError: It is not the project that was expected, or nobody can answer.
    """
    from urllib.parse import urlsplit

    from s3seg.errors import InvalidRequestError

    named = f"{service} has its users sign in at {project.url}"
    if expected is not None:
        if expected.rstrip("/") != project.url:
            raise InvalidRequestError(f"{named}, not at {expected}; nothing was sent")
        return
    if urlsplit(service).hostname == urlsplit(project.url).hostname or store.project_of(service) == project.url:
        return
    if not _at_a_terminal():
        raise InvalidRequestError(f"{named}; if that is right, add --project {project.url}")
    typer.echo(f"{named}, and gets access to the account that you have there.", err=True)
    typer.confirm("Does this project belong to the service?", abort=True, err=True)


def logout(
    url: Service = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Sign out of every service.")] = False,
) -> None:
    """End a sign-in, and forget it on this machine."""
    from s3seg.client.signin import SessionStore, SignedIn
    from s3seg.commands.terminal import Terminal
    from s3seg.errors import ConfigurationError

    store, terminal = SessionStore(), Terminal()
    for service in store.services() if everywhere else [_chosen(url, store)]:
        try:
            problem = SignedIn(service, store=store).sign_out()
        except ConfigurationError as err:  # nothing of use is kept, so that there is only something to forget
            store.delete(service)
            problem = str(err)
        typer.echo(f"signed out of {service}")
        if problem:
            terminal.warn(f"the session could not be ended at its project, where it ends by itself: {problem}")


def whoami(url: Service = None) -> None:
    """Show which user you are signed in as, with tier and credits."""
    from s3seg.client.signin import SessionStore, SignedIn

    store = SessionStore()
    service = _chosen(url, store)
    account = _account(service)
    signed_in = SignedIn(service, store=store)
    typer.echo(f"service: {service}")
    typer.echo(f"user: {one_line(signed_in.name or account.user_id)}")
    typer.echo(f"id: {one_line(account.user_id)}")
    typer.echo(f"tier: {one_line(account.tier)}")
    typer.echo(f"credits: {account.credits}")
    typer.echo(f"kept in: {_place(signed_in.kept_in)}")


def _with_token(service: str, store: SessionStore) -> StoredSession:
    from s3seg.client import Client
    from s3seg.client._settings import checked_token
    from s3seg.client.signin.signed_in import session_of_token

    token = checked_token(_ask_secret("Access token: "))
    with Client(service, token) as client:
        client.me()  # a token that does not work is not kept
    with store.locked(service):
        return store.write(session_of_token(service, token))


def _by_email(service: str, project: Project, store: SessionStore, email: str, *, code: bool) -> StoredSession:
    from s3seg.client.signin.supabase import SupabaseAuth

    auth = SupabaseAuth(service, project, store.write)
    typer.echo(f"signing in at {project.url}", err=True)
    if code:
        auth.send_code(email)
        answer = _ask_secret(f"Code that was sent to {email}: ")
    else:
        answer = _ask_secret("Password: ")
    with store.locked(service):
        return auth.with_code(email, answer.strip()) if code else auth.with_password(email, answer)


def _in_browser(service: str, project: Project, store: SessionStore, provider: str | None) -> StoredSession:
    import webbrowser

    from s3seg.client.signin.browser import callback
    from s3seg.client.signin.supabase import SupabaseAuth
    from s3seg.errors import InvalidRequestError

    auth = SupabaseAuth(service, project, store.write)
    if provider is None:
        offered = auth.providers()
        if not offered:
            raise InvalidRequestError("nobody can sign in to this service in the browser; use a password, or --code")
        if len(offered) > 1:
            raise InvalidRequestError(f"choose how to sign in with --provider: one of {', '.join(offered)}")
        provider = offered[0]
    with callback() as answer:
        address = auth.start_in_browser(provider, answer.redirect)
        typer.echo(f"If no browser opens, open this address on this machine:\n{address}", err=True)
        webbrowser.open(address)
        code = answer.code(timeout_s=_BROWSER_TIMEOUT_S)
    with store.locked(service):
        return auth.finish_in_browser(code)


def _report(session: StoredSession, store: SessionStore) -> None:
    """Say who is signed in; a sign-in that the service refuses is not kept."""
    from s3seg.commands.terminal import Terminal
    from s3seg.errors import AuthInvalidError, ForbiddenError, UnavailableError

    try:
        account = _account(session.service)
    except (AuthInvalidError, ForbiddenError):
        store.delete(session.service)
        raise
    except UnavailableError as err:
        typer.echo(f"signed in to {session.service} as {one_line(session.name or session.user_id)}")
        Terminal().warn(str(err))
        return
    who = one_line(session.name or account.user_id)
    typer.echo(f"signed in to {session.service} as {who} ({account.tier}, {account.credits} credits)")
    typer.echo(f"kept in {_place(session.kept_in)}", err=True)


def _account(service: str) -> MeResponse:
    from s3seg.client import Client

    with Client.signed_in(service, realtime=False) as client:
        return client.me()


def _chosen(url: str | None, store: SessionStore) -> str:
    """Return the service that a command is about, signed in to or not."""
    from s3seg.client.signin.sessions import service_of
    from s3seg.errors import AuthRequiredError, InvalidRequestError

    given = url or os.environ.get("S3SEG_URL")
    if given:
        service = service_of(given)
        if store.has(service):
            return service
        raise AuthRequiredError(f"nobody is signed in to {service}; sign in with: s3seg login {service}")
    services = store.services()
    if len(services) == 1:
        return services[0]
    if not services:
        raise AuthRequiredError("nobody is signed in to any service; sign in with: s3seg login URL")
    raise InvalidRequestError(f"you are signed in to several services; name one: {', '.join(services)}")


def _place(kept_in: str) -> str:
    return "the system's keyring" if kept_in == "keyring" else "a file that only you can read"


def _ask(question: str) -> str:
    if _at_a_terminal():
        sys.stderr.write(question)
        sys.stderr.flush()
    return _line().strip()


def _ask_secret(question: str) -> str:
    """Ask without showing what is typed; where standard input is not a terminal, read a line of it."""
    if _at_a_terminal():
        import getpass

        return getpass.getpass(question)
    return _line()


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _line() -> str:
    from s3seg.errors import InvalidRequestError

    line = sys.stdin.readline(_MOST_SECRET_CHARS)
    if not line.strip():
        raise InvalidRequestError("nothing was entered; type it, or pass it on standard input")
    return line.rstrip("\r\n")
