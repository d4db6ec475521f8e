"""A page on which people change the variables: `admin_blueprint`."""

try:
    from .blueprint import admin_blueprint
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("flask_wtf", "wtforms"):
        raise
    raise ModuleNotFoundError(
        "The admin page needs Flask-WTF. Run: pip install 'uwsgi_waffle[admin]'", name=error.name
    ) from error

__all__ = ["admin_blueprint"]
