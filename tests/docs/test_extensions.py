"""Each row of docs/with-extensions.md: which value an extension follows, and which needs a hook."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask, Response, current_app, request, session

from uwsgi_waffle import ManagedVariable, MemoryStore, WaffleConf


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    """Skip a test whose extension isn't installed."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None,
        reason=f"{distribution} is not installed: pip install {distribution}",
    )


def site(**defaults: Any) -> tuple[Flask, WaffleConf]:
    """Return an application whose variables have these defaults."""
    app = Flask("site")
    app.testing = True
    app.config["WAFFLE_CONFS"] = {name: {"default": value} for name, value in defaults.items()}
    return app, WaffleConf(app, MemoryStore())


class TestFlask:
    def test_it_follows_max_content_length(self) -> None:
        """Flask reads MAX_CONTENT_LENGTH when a body is read."""
        app, waffle = site(MAX_CONTENT_LENGTH=10)

        @app.post("/")
        def upload() -> str:
            return str(len(request.get_data()))

        client = app.test_client()
        assert client.post("/", data=b"x" * 11).status_code == 413
        waffle.update({"MAX_CONTENT_LENGTH": 11})
        assert client.post("/", data=b"x" * 11).status_code == 200

    def test_it_follows_permanent_session_lifetime(self) -> None:
        """Flask reads PERMANENT_SESSION_LIFETIME when it sets the cookie."""
        app, waffle = site(PERMANENT_SESSION_LIFETIME=60)
        app.secret_key = "test"
        assert app.permanent_session_lifetime == timedelta(seconds=60)
        waffle.update({"PERMANENT_SESSION_LIFETIME": 3600})
        assert app.permanent_session_lifetime == timedelta(seconds=3600)


@needs("flask_mail", "Flask-Mail")
class TestMail:
    def test_it_does_not_follow(self) -> None:
        """Flask-Mail copies its settings in init_app."""
        from flask_mail import Mail

        app, waffle = site(MAIL_SERVER="one.example")
        mail = Mail(app)
        waffle.update({"MAIL_SERVER": "two.example"})
        assert mail.state.server == "one.example"

    def test_the_hook(self) -> None:
        """A second init_app copies the new settings."""
        from flask_mail import Mail

        app, waffle = site(MAIL_SERVER="one.example", MAIL_PORT=25)
        mail = Mail(app)

        @waffle.on_change("MAIL_SERVER", "MAIL_PORT")
        def reconnect(change: object) -> None:
            mail.state = mail.init_app(app)

        waffle.update({"MAIL_SERVER": "two.example", "MAIL_PORT": 587})
        assert (mail.state.server, mail.state.port) == ("two.example", 587)
        assert app.extensions["mail"] is mail.state


@needs("flask_babel", "Flask-Babel")
class TestBabel:
    def test_it_does_not_follow(self) -> None:
        """Flask-Babel copies BABEL_DEFAULT_LOCALE in init_app."""
        from flask_babel import Babel, get_locale

        app, waffle = site(BABEL_DEFAULT_LOCALE="de")
        Babel(app)
        waffle.update({"BABEL_DEFAULT_LOCALE": "fr"})
        with app.test_request_context():
            assert str(get_locale()) == "de"

    def test_a_selector_follows(self) -> None:
        """Flask-Babel calls a selector in each request."""
        from flask_babel import Babel, get_locale

        app, waffle = site(BABEL_DEFAULT_LOCALE="de")
        Babel(app, locale_selector=lambda: waffle.values.BABEL_DEFAULT_LOCALE)
        waffle.update({"BABEL_DEFAULT_LOCALE": "fr"})
        with app.test_request_context():
            assert str(get_locale()) == "fr"


def allowed(app: Flask, origin: str) -> str | None:
    """Return what a page from ``origin`` is told about the application's front page."""
    response = app.test_client().get("/", headers={"Origin": origin})
    return response.headers.get("Access-Control-Allow-Origin")


@needs("flask_cors", "flask-cors")
class TestCORS:
    def test_it_does_not_follow(self) -> None:
        """Flask-CORS copies CORS_ORIGINS in init_app."""
        from flask_cors import CORS

        app, waffle = site(CORS_ORIGINS=["https://one.example"])
        CORS(app)
        app.get("/")(lambda: "")
        waffle.update({"CORS_ORIGINS": ["https://two.example"]})
        assert allowed(app, "https://two.example") is None

    def test_headers_of_ones_own_follow(self) -> None:
        """Flask-CORS's function, called after each request, reads the settings each time."""
        from flask_cors.core import get_cors_options, set_cors_headers

        app, waffle = site(CORS_ORIGINS=["https://one.example"])
        app.get("/")(lambda: "")

        @app.after_request
        def cors(response: Response) -> Response:
            set_cors_headers(response, get_cors_options(current_app))
            return response

        assert allowed(app, "https://two.example") is None
        waffle.update({"CORS_ORIGINS": ["https://two.example"]})
        assert allowed(app, "https://two.example") == "https://two.example"


@needs("flask_limiter", "Flask-Limiter")
class TestLimiter:
    def limited(self, app: Flask) -> Callable[[int], list[int]]:
        app.get("/")(lambda: "")
        client = app.test_client()
        return lambda count: [client.get("/").status_code for _ in range(count)]

    def test_it_does_not_follow(self) -> None:
        """Flask-Limiter copies RATELIMIT_DEFAULT in init_app."""
        from flask_limiter import Limiter
        from flask_limiter.util import get_remote_address

        app, waffle = site(RATELIMIT_DEFAULT="2/hour")
        Limiter(get_remote_address, app=app, storage_uri="memory://")
        ask = self.limited(app)
        waffle.update({"RATELIMIT_DEFAULT": "9/hour"})
        assert ask(3) == [200, 200, 429]

    def test_a_function_follows(self) -> None:
        """Flask-Limiter calls a limit that is a function at each request."""
        from flask_limiter import Limiter
        from flask_limiter.util import get_remote_address

        app, waffle = site(RATE="2/hour")
        Limiter(
            get_remote_address,
            app=app,
            storage_uri="memory://",
            default_limits=[lambda: waffle.values.RATE],
        )
        ask = self.limited(app)
        assert ask(3) == [200, 200, 429]
        waffle.update({"RATE": "9/hour"})
        assert ask(3) == [200, 200, 200]

    def test_the_hook_for_enabled(self) -> None:
        """Flask-Limiter reads RATELIMIT_ENABLED in init_app, and its attribute at each request."""
        from flask_limiter import Limiter
        from flask_limiter.util import get_remote_address

        app, waffle = site(RATELIMIT_ENABLED=True)
        limiter = Limiter(
            get_remote_address, app=app, storage_uri="memory://", default_limits=["1/hour"]
        )
        ask = self.limited(app)
        waffle.update({"RATELIMIT_ENABLED": False})
        assert ask(2) == [200, 429]

        @waffle.on_change("RATELIMIT_ENABLED")
        def switch(change: object) -> None:
            limiter.enabled = waffle.values.RATELIMIT_ENABLED

        waffle.update({"RATELIMIT_ENABLED": True})
        waffle.update({"RATELIMIT_ENABLED": False})
        assert ask(2) == [200, 200]


@needs("flask_caching", "Flask-Caching")
class TestCaching:
    def test_it_does_not_follow(self) -> None:
        """Flask-Caching copies CACHE_DEFAULT_TIMEOUT in init_app."""
        from flask_caching import Cache

        app, waffle = site(CACHE_DEFAULT_TIMEOUT=10)
        cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
        waffle.update({"CACHE_DEFAULT_TIMEOUT": 20})
        with app.app_context():
            assert cache.cache.default_timeout == 10

    def test_the_hook(self) -> None:
        """The cache's attribute counts for what is stored from then on."""
        from flask_caching import Cache

        app, waffle = site(CACHE_DEFAULT_TIMEOUT=10)
        cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})

        @waffle.on_change("CACHE_DEFAULT_TIMEOUT")
        def set_timeout(change: object) -> None:
            cache.cache.default_timeout = waffle.values.CACHE_DEFAULT_TIMEOUT

        waffle.update({"CACHE_DEFAULT_TIMEOUT": 20})
        with app.app_context():
            assert cache.cache.default_timeout == 20


@needs("flask_session", "Flask-Session")
@needs("cachelib", "cachelib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestSession:
    def test_it_follows_the_lifetime_and_not_the_permanence(self) -> None:
        """Flask-Session copies SESSION_PERMANENT; Flask reads PERMANENT_SESSION_LIFETIME."""
        from cachelib import SimpleCache
        from flask_session import Session

        app, waffle = site(PERMANENT_SESSION_LIFETIME=60, SESSION_PERMANENT=True)
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
        Session(app)

        @app.get("/")
        def visit() -> str:
            session["visited"] = True
            return f"{app.permanent_session_lifetime.total_seconds():g} {session.permanent}"

        client = app.test_client()
        assert client.get("/").text == "60 True"
        waffle.update({"PERMANENT_SESSION_LIFETIME": 3600, "SESSION_PERMANENT": False})
        assert client.get("/").text == "3600 True"
        assert app.test_client().get("/").text == "3600 True"

    def test_the_hook(self) -> None:
        """The session interface's attribute counts for new sessions."""
        from cachelib import SimpleCache
        from flask_session import Session

        app, waffle = site(SESSION_PERMANENT=True)
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
        Session(app)

        @waffle.on_change("SESSION_PERMANENT")
        def set_permanence(change: object) -> None:
            app.session_interface.permanent = waffle.values.SESSION_PERMANENT

        @app.get("/")
        def visit() -> str:
            session["visited"] = True
            return str(session.permanent)

        waffle.update({"SESSION_PERMANENT": False})
        assert app.test_client().get("/").text == "False"


@needs("flask_login", "Flask-Login")
class TestLogin:
    def test_it_follows(self) -> None:
        """Flask-Login reads its settings in each request."""
        from flask_login import LoginManager, UserMixin, login_required, login_user

        app, waffle = site(LOGIN_DISABLED=False, REMEMBER_COOKIE_DURATION=60)
        app.secret_key = "test"
        manager = LoginManager(app)
        manager.user_loader(lambda number: None)

        class User(UserMixin):
            id = "1"

        @app.get("/")
        @login_required
        def front() -> str:
            return ""

        @app.get("/login")
        def login() -> str:
            login_user(User(), remember=True)
            return ""

        client = app.test_client()
        assert client.get("/").status_code == 401
        waffle.update({"LOGIN_DISABLED": True})
        assert client.get("/").status_code == 200

        def remembered() -> float:
            client = app.test_client()
            client.get("/login")
            cookie = client.get_cookie("remember_token")
            assert cookie is not None and cookie.expires is not None  # noqa: PT018  # one thought, and mypy needs both
            return (cookie.expires - datetime.now(timezone.utc)).total_seconds()

        assert remembered() <= 60
        waffle.update({"REMEMBER_COOKIE_DURATION": 3600})
        assert 3000 < remembered() <= 3600


@needs("flask_sqlalchemy", "Flask-SQLAlchemy")
class TestSQLAlchemy:
    def test_it_does_not_follow(self) -> None:
        """Flask-SQLAlchemy makes its engines in init_app."""
        from flask_sqlalchemy import SQLAlchemy

        app, waffle = site(SQLALCHEMY_DATABASE_URI="sqlite:///one.db")
        db = SQLAlchemy(app)
        waffle.update({"SQLALCHEMY_DATABASE_URI": "sqlite:///two.db"})
        with app.app_context():
            assert str(db.engine.url).endswith("one.db")

    def test_a_second_init_app_is_refused(self) -> None:
        """So there is no hook: a new database needs a restart."""
        from flask_sqlalchemy import SQLAlchemy

        app, _ = site(SQLALCHEMY_DATABASE_URI="sqlite:///one.db")
        db = SQLAlchemy(app)
        with pytest.raises(RuntimeError, match="already"):
            db.init_app(app)

    def test_echo_follows_with_a_hook(self) -> None:
        """An engine's echo can be switched while it is in use."""
        from flask_sqlalchemy import SQLAlchemy

        app, waffle = site(SQLALCHEMY_ECHO=False)
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///one.db"
        db = SQLAlchemy(app)

        @waffle.on_change("SQLALCHEMY_ECHO")
        def set_echo(change: object) -> None:
            db.engine.echo = waffle.values.SQLALCHEMY_ECHO

        with app.app_context():
            assert db.engine.echo is False
        waffle.update({"SQLALCHEMY_ECHO": True})
        with app.app_context():
            assert db.engine.echo is True


@needs("flask_talisman", "flask-talisman")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestTalisman:
    def test_the_hook(self) -> None:
        """Flask-Talisman takes its options as arguments, and reads its attributes each time."""
        from flask_talisman import Talisman

        app, waffle = site(CSP="default-src 'self'")
        app.get("/")(lambda: "")
        talisman = Talisman(app, force_https=False, content_security_policy=waffle.values.CSP)

        def policy() -> str:
            return app.test_client().get("/").headers["Content-Security-Policy"]

        waffle.update({"CSP": "default-src 'none'"})
        assert policy() == "default-src 'self'"

        @waffle.on_change("CSP")
        def set_policy(change: object) -> None:
            talisman.content_security_policy = waffle.values.CSP

        waffle.update({"CSP": "default-src https:"})
        assert policy() == "default-src https:"

    @pytest.mark.parametrize(
        ("name", "value"), [("SECURE", False), ("HTTPONLY", False), ("SAMESITE", "None")]
    )
    def test_it_assigns_flasks_settings(self, name: str, value: object) -> None:
        """Flask-Talisman sets the session cookie's flags, so they can't be variables."""
        from flask_talisman import Talisman

        app, _ = site(**{f"SESSION_COOKIE_{name}": value})
        app.testing, app.config["PROPAGATE_EXCEPTIONS"] = False, True

        def visit() -> None:
            Talisman(app)
            app.test_client().get("/", base_url="https://site.example")  # it sets SECURE here

        with pytest.raises(ManagedVariable):
            visit()


@needs("flask_wtf", "Flask-WTF")
class TestWTF:
    def test_it_follows(self) -> None:
        """Flask-WTF reads WTF_CSRF_ENABLED in each request."""
        from flask_wtf import CSRFProtect

        app, waffle = site(WTF_CSRF_CHECK_DEFAULT=True)
        app.secret_key = "test"
        CSRFProtect(app)
        app.post("/")(lambda: "")
        client = app.test_client()
        assert client.post("/").status_code == 400
        waffle.update({"WTF_CSRF_CHECK_DEFAULT": False})
        assert client.post("/").status_code == 200
