"""django-constance, with the backend that ``BENCH_BACKEND`` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

CACHED = 10  # seconds; the default is 60
FOLDER = Path(os.environ.get("SITE_DATABASE", os.environ["SITE_FOLDER"]))


def read(_: HttpRequest) -> Any:
    return JsonResponse({"V0": config.V0})


def update(request: HttpRequest) -> Any:
    config.V0 = int(request.GET["n"])
    return JsonResponse(True, safe=False)


urlpatterns = [path("read", read), path("update", update)]
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["constance"],
    MIDDLEWARE=[],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "constance.db"}
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    CONSTANCE_BACKEND=os.environ["BENCH_BACKEND"],
    CONSTANCE_CONFIG={"V0": (0, "")},
    CONSTANCE_REDIS_CONNECTION=os.environ.get("BENCH_REDIS", ""),
    # the contestants share one Redis, and mustn't read each other's values
    CONSTANCE_REDIS_PREFIX=f"constance:{FOLDER}:",
    CONSTANCE_REDIS_CACHE_TIMEOUT=CACHED,
)
django.setup()
from constance import config  # noqa: E402  # it reads the settings

call_command("migrate", verbosity=0)
application = get_wsgi_application()
