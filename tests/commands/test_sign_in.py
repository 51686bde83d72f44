"""s3seg login, logout and whoami, against an edge and a stand-in for Supabase Auth."""

import threading
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest

from s3seg.adapters.local_auth import user_id_of
from s3seg.app import local_keys
from s3seg.app.settings import Settings
from s3seg.client.signin import SessionStore, sessions
from s3seg.client.signin.browser import callback
from s3seg.commands.segment.backends import choose_backend
from s3seg.commands.segment.options import ModelOptions
from s3seg.commands.service import connect
from s3seg.errors import AuthInvalidError
from tests.helpers.fake_supabase import fake_supabase
from tests.helpers.signing_in import MemoryKeyring, edge_of

EMAIL, PASSWORD = "ann@example.com", "correct horse"


@pytest.fixture(scope="module")
def supabase():
    with fake_supabase() as running:
        running.auth.sign_up(EMAIL, PASSWORD)
        yield running


@pytest.fixture(scope="module")
def edge(supabase, tmp_path_factory):
    with edge_of(supabase, tmp_path_factory.mktemp("edge")) as url:
        yield url


@pytest.fixture(scope="module")
def local_edge(supabase, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    with edge_of(supabase, folder, authenticator="local") as url:
        yield url, local_keys(Settings(_env_file=None, data_dir=folder))


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setattr(sessions, "_default_folder", lambda: tmp_path / "sign-ins")
    monkeypatch.setattr(sessions, "system_keyring", lambda: None)
    monkeypatch.delenv("S3SEG_URL", raising=False)
    monkeypatch.delenv("S3SEG_TOKEN", raising=False)
    return SessionStore()


@pytest.fixture
def user(supabase):
    return supabase.auth.users[EMAIL]


class TestPassword:
    def test_the_password_is_read_from_standard_input_and_shown_nowhere(self, s3seg, supabase, edge, store, user):
        done = s3seg("login", edge, "--email", EMAIL, input=f"{PASSWORD}\n")
        assert done.exit_code == 0, done.output
        assert done.stdout == f"signed in to {edge} as {EMAIL} (free, 10 credits)\n"
        assert f"signing in at {supabase.url}" in done.stderr
        assert "kept in a file that only you can read" in done.stderr
        kept = store.read(edge)
        assert kept.user_id == user.user_id
        for secret in (PASSWORD, kept.access_token.get_secret_value(), kept.refresh_token.get_secret_value()):
            assert secret not in done.output

    def test_the_email_address_may_come_from_standard_input_too(self, s3seg, edge, store):
        assert s3seg("login", f"{edge}/", input=f"{EMAIL}\n{PASSWORD}\n").exit_code == 0
        assert store.services() == [edge]

    def test_at_a_terminal_it_is_asked_for_without_showing_it(self, s3seg, edge, store, monkeypatch):
        monkeypatch.setattr("s3seg.commands.sign_in._at_a_terminal", lambda: True)
        asked = []
        monkeypatch.setattr("getpass.getpass", lambda question: asked.append(question) or PASSWORD)
        assert s3seg("login", edge, "--email", EMAIL).exit_code == 0
        assert asked == ["Password: "]

    @pytest.mark.parametrize(("email", "password"), [(EMAIL, "tr0ub4dor"), ("bob@example.com", PASSWORD)])
    def test_a_wrong_one_is_refused_in_words(self, s3seg, edge, store, email, password):
        done = s3seg("login", edge, "--email", email, input=f"{password}\n")
        assert done.exit_code == 1
        assert done.stderr.endswith("error: the email address or the password is wrong\n")
        assert password not in done.output
        assert store.services() == []

    def test_no_password_at_all_is_told(self, s3seg, edge):
        done = s3seg("login", edge, "--email", EMAIL, input="")
        assert (done.exit_code, "nothing was entered" in done.stderr) == (2, True)

    def test_with_a_keyring_the_sign_in_is_kept_there(self, s3seg, edge, store, monkeypatch):
        kept = MemoryKeyring()
        monkeypatch.setattr(sessions, "system_keyring", lambda: kept)
        done = s3seg("login", edge, "--email", EMAIL, input=PASSWORD)
        assert "kept in the system's keyring" in done.stderr
        assert list(kept.kept) == [("s3seg", edge)]


class TestCode:
    def test_a_code_from_an_email_signs_in(self, s3seg, supabase, edge, store, monkeypatch):
        class Mailbox:
            """Standard input of someone who reads the message."""

            def isatty(self):
                return False

            def readline(self, limit):
                return supabase.auth.mail[EMAIL] + "\n"

        monkeypatch.setattr("s3seg.commands.sign_in.sys.stdin", Mailbox())
        from s3seg.commands import sign_in

        sign_in.login(edge, email=EMAIL, code=True)
        assert store.read(edge).name == EMAIL
        assert supabase.auth.mail == {}

    def test_a_wrong_code_is_refused_in_words(self, s3seg, edge, store):
        done = s3seg("login", edge, "--email", EMAIL, "--code", input="000000x\n")
        assert done.exit_code == 1
        assert "error: the code is wrong, or has expired; get a new one" in done.stderr
        assert store.services() == []

    def test_nobody_is_signed_up_by_mistake(self, s3seg, supabase, edge):
        done = s3seg("login", edge, "--email", "typo@example.com", "--code", input="000000\n")
        assert "error: there is no user with this email address" in done.stderr
        assert "typo@example.com" not in supabase.auth.users


class TestBrowser:
    @pytest.fixture
    def browser(self, monkeypatch):
        """Opens pages and follows where they lead."""
        opened = []

        def open_page(address):
            opened.append(address)
            threading.Thread(target=lambda: httpx.get(address, follow_redirects=True)).start()
            return True

        monkeypatch.setattr("webbrowser.open", open_page)
        return opened

    def test_the_browser_signs_in_with_the_only_provider(self, s3seg, supabase, edge, store, browser):
        done = s3seg("login", edge, "--browser")
        assert done.exit_code == 0, done.output
        assert store.read(edge).name == EMAIL
        assert browser[0] in done.stderr
        assert "provider=github" in browser[0]
        assert supabase.auth.grants[-1] == "pkce"

    def test_a_provider_that_the_project_does_not_have_is_refused(self, s3seg, edge, monkeypatch):
        monkeypatch.setattr("webbrowser.open", lambda address: True)
        monkeypatch.setattr("s3seg.commands.sign_in._BROWSER_TIMEOUT_S", 0.01)
        done = s3seg("login", edge, "--provider", "google")
        assert done.exit_code == 1
        assert "nobody has signed in with the browser" in done.stderr

    def test_with_several_providers_one_must_be_named(self, s3seg, supabase, edge, monkeypatch):
        monkeypatch.setitem(supabase.auth.external, "google", True)
        done = s3seg("login", edge, "--browser")
        assert done.exit_code == 2
        assert "choose how to sign in with --provider: one of github, google" in done.stderr


class TestProjectOnAnotherHost:
    """A service may name a project that is not its own, and would get a token that works there."""

    @pytest.fixture
    def edge(self, edge):
        """The same edge by another name than its project."""
        return edge.replace("127.0.0.1", "localhost")

    @pytest.fixture
    def at_a_terminal(self, monkeypatch):
        monkeypatch.setattr("s3seg.commands.sign_in._at_a_terminal", lambda: True)
        monkeypatch.setattr("getpass.getpass", lambda question: PASSWORD)

    def test_at_a_terminal_it_is_asked_once_whether_it_is_the_right_one(
        self, s3seg, supabase, edge, store, at_a_terminal
    ):
        done = s3seg("login", edge, "--email", EMAIL, input="y\n")
        assert done.exit_code == 0, done.output
        assert f"{edge} has its users sign in at {supabase.url}" in done.stderr
        assert store.services() == [edge]
        again = s3seg("login", edge, "--email", EMAIL, input="")
        assert (again.exit_code, "has its users" in again.stderr) == (0, False)

    @pytest.mark.parametrize("answer", ["n\n", "\n", ""])
    def test_without_a_yes_nothing_is_sent(self, s3seg, supabase, edge, store, at_a_terminal, answer):
        before = len(supabase.auth.grants)
        done = s3seg("login", edge, "--email", EMAIL, input=answer)
        assert (done.exit_code, store.services(), len(supabase.auth.grants)) == (1, [], before)

    @pytest.mark.parametrize("way", [["--email", EMAIL], ["--email", EMAIL, "--code"], ["--browser"]])
    def test_a_script_has_to_name_it(self, s3seg, supabase, edge, store, monkeypatch, way):
        monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("the browser was opened"))
        before = len(supabase.auth.grants)
        done = s3seg("login", edge, *way, input=f"{PASSWORD}\n")
        assert (done.exit_code, store.services(), len(supabase.auth.grants)) == (2, [], before)
        assert f"add --project {supabase.url}" in done.stderr

    def test_the_project_that_was_named_is_accepted_and_no_other(self, s3seg, supabase, edge, store):
        wrong = s3seg("login", edge, "--email", EMAIL, "--project", "https://mine.supabase.co", input=PASSWORD)
        assert wrong.exit_code == 2
        assert f"at {supabase.url}, not at https://mine.supabase.co" in wrong.stderr
        assert store.services() == []
        right = s3seg("login", edge, "--email", EMAIL, "--project", f"{supabase.url}/", input=PASSWORD)
        assert right.exit_code == 0, right.output
        assert s3seg("login", edge, "--email", EMAIL, input=PASSWORD).exit_code == 0  # it is remembered

    def test_another_project_than_before_is_asked_about_again(self, s3seg, supabase, edge, store):
        assert s3seg("login", edge, "--email", EMAIL, "--project", supabase.url, input=PASSWORD).exit_code == 0
        session = store.read(edge)
        store.write(replace(session, project=replace(session.project, url="https://before.supabase.co")))
        assert s3seg("login", edge, "--email", EMAIL, input=PASSWORD).exit_code == 2

    def test_a_damaged_sign_in_says_nothing_about_the_project(self, s3seg, supabase, edge, store):
        assert s3seg("login", edge, "--email", EMAIL, "--project", supabase.url, input=PASSWORD).exit_code == 0
        store._path(edge).write_text("{")
        assert s3seg("login", edge, "--email", EMAIL, input=PASSWORD).exit_code == 2

    def test_it_is_no_option_of_a_service_without_sign_in(self, s3seg, local_edge, supabase):
        done = s3seg("login", local_edge[0], "--project", supabase.url, input="x")
        assert (done.exit_code, "its operator hands out access tokens" in done.stderr) == (2, True)


class TestCallback:
    def test_only_an_answer_with_the_secret_of_the_sign_in_counts(self):
        with callback() as waiting:
            assert urlsplit(waiting.redirect).hostname == "127.0.0.1"
            bare, _, _ = waiting.redirect.partition("?")
            for wrong in (
                f"{bare}?code=evil",
                f"{bare}?state=guess&code=evil",
                f"{bare}x?{waiting.redirect}&code=evil",
            ):
                assert httpx.get(wrong).status_code == 404
            assert httpx.get(f"{waiting.redirect}&code=good").status_code == 200
            assert httpx.get(f"{waiting.redirect}&code=second").status_code == 200
            assert waiting.code(timeout_s=5) == "good"

    def test_a_refusal_is_told_and_cannot_inject_a_page(self):
        with callback() as waiting:
            answer = httpx.get(f"{waiting.redirect}&error=access_denied&error_description=<script>no</script>")
            assert "<script>" not in answer.text
            with pytest.raises(AuthInvalidError, match="the sign-in in the browser failed: <script>no"):
                waiting.code(timeout_s=5)

    def test_it_does_not_wait_for_ever(self):
        with callback() as waiting, pytest.raises(AuthInvalidError, match="try again"):
            waiting.code(timeout_s=0.01)

    def test_nothing_listens_afterwards(self):
        with callback() as waiting:
            address = waiting.redirect
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)

    def test_it_logs_nothing(self, capfd):
        with callback() as waiting:
            httpx.get(f"{waiting.redirect}&code=good")
        assert "".join(capfd.readouterr()) == ""


class TestToken:
    def test_a_token_of_the_operator_is_kept_likewise(self, s3seg, local_edge, store):
        url, keys = local_edge
        token = keys.mint("ann")
        done = s3seg("login", url, "--token", input=f"{token}\n")
        assert done.exit_code == 0, done.output
        assert done.stdout == f"signed in to {url} as ann (free, 10 credits)\n"
        assert token not in done.output
        assert store.read(url).user_id == user_id_of("ann")

    def test_a_service_without_sign_in_asks_for_one_by_itself(self, s3seg, local_edge, store):
        url, keys = local_edge
        assert s3seg("login", url, input=keys.mint("bob")).exit_code == 0
        assert store.read(url).name == "bob"

    def test_a_token_that_the_service_refuses_is_not_kept(self, s3seg, local_edge, store):
        done = s3seg("login", local_edge[0], "--token", input="eyJ.eyJ.sig\n")
        assert done.exit_code == 1
        assert "the token is not a JWT" in done.stderr
        assert store.services() == []

    def test_options_of_a_sign_in_are_refused_there(self, s3seg, local_edge):
        done = s3seg("login", local_edge[0], "--code", "--email", EMAIL, input="x")
        assert (done.exit_code, "its operator hands out access tokens" in done.stderr) == (2, True)


class TestStaying:
    @pytest.fixture
    def both(self, s3seg, edge, local_edge):
        url, keys = local_edge
        assert s3seg("login", edge, "--email", EMAIL, input=PASSWORD).exit_code == 0
        assert s3seg("login", url, "--token", input=keys.mint("ann")).exit_code == 0
        return edge, url

    def test_whoami_asks_the_service(self, s3seg, both, user):
        done = s3seg("whoami", both[0])
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines() == [
            f"service: {both[0]}",
            f"user: {EMAIL}",
            f"id: {user.user_id}",
            "tier: free",
            "credits: 10",
            "kept in: a file that only you can read",
        ]

    def test_a_name_cannot_command_the_terminal(self, s3seg, both, store):
        session = store.read(both[0])
        store.write(replace(session, name="ann\x1b]0;root\x07\r\nid: 7"))
        done = s3seg("whoami", both[0])
        assert done.stdout.splitlines()[1] == r"user: ann\x1b]0;root\x07\x0d\nid: 7"

    def test_with_several_services_one_must_be_named(self, s3seg, both):
        done = s3seg("whoami")
        assert done.exit_code == 2
        assert all(url in done.stderr for url in both)

    def test_the_environment_names_one(self, s3seg, both, monkeypatch):
        monkeypatch.setenv("S3SEG_URL", both[1])
        assert s3seg("whoami").stdout.startswith(f"service: {both[1]}\nuser: ann\n")

    def test_logout_ends_one_and_leaves_the_others(self, s3seg, supabase, both, store, user):
        before = supabase.auth.sessions(user)
        assert s3seg("logout", both[0]).stdout == f"signed out of {both[0]}\n"
        assert supabase.auth.sessions(user) == before - 1
        assert store.services() == [both[1]]
        assert s3seg("logout").stdout == f"signed out of {both[1]}\n"  # the only one
        done = s3seg("logout")
        assert (done.exit_code, "nobody is signed in to any service" in done.stderr) == (1, True)

    def test_logout_ends_all_of_them(self, s3seg, both, store):
        assert len(s3seg("logout", "--all").stdout.splitlines()) == 2
        assert store.services() == []

    def test_a_damaged_sign_in_can_be_forgotten(self, s3seg, both, store):
        store._path(both[0]).write_text("{")
        done = s3seg("logout", both[0])
        assert (done.exit_code, store.services()) == (0, [both[1]])

    def test_whoami_without_a_sign_in_says_how(self, s3seg, edge):
        done = s3seg("whoami", edge)
        assert done.stderr == f"error: nobody is signed in to {edge}; sign in with: s3seg login {edge}\n"

    def test_other_commands_use_the_sign_in(self, both, user):
        backend = choose_backend(ModelOptions(url=f"{both[0]}/"), boxes=False)
        with backend.load() as client:
            assert client.me().user_id == user.user_id

    def test_a_given_token_wins_over_the_sign_in(self, both, local_edge, monkeypatch):
        monkeypatch.setenv("S3SEG_TOKEN", local_edge[1].mint("carol"))
        with connect(both[1], None) as client:
            assert client.me().user_id == user_id_of("carol")
        with connect(both[1], local_edge[1].mint("dave")) as client:
            assert client.me().user_id == user_id_of("dave")


@pytest.mark.parametrize(
    "options", [["--code", "--token"], ["--browser", "--token"], ["--code", "--provider", "github"]]
)
def test_ways_to_sign_in_exclude_each_other(s3seg, edge, options):
    assert s3seg("login", edge, *options).exit_code == 2


def test_a_service_that_does_not_answer_is_named(s3seg):
    done = s3seg("login", "http://127.0.0.1:9")
    assert (done.exit_code, "cannot reach http://127.0.0.1:9" in done.stderr) == (1, True)
