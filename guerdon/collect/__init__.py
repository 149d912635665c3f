"""Where people say which answer is better. Importing it needs the packages of the extra `collect`."""

from importlib.util import find_spec

from guerdon.types import ConfigError

_NEEDED = {"sqlalchemy": "SQLAlchemy", "alembic": "Alembic", "fastapi": "FastAPI", "argon2": "argon2-cffi"}

if _missing := [name for module, name in _NEEDED.items() if find_spec(module) is None]:
    raise ConfigError(f"guerdon collect needs {', '.join(_missing)}; install them: pip install 'guerdon[collect]'")
