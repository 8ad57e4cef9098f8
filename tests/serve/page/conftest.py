"""The page before a scripted API: `open_page(models, **settings)`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from apps.serve.page.config import PageConfig
from apps.serve.page.web.app import build_page
from tests.serve.page.live import Live, Person, Says, Upstream
from tests.serve.page.postgres import empty, postgres_server


class OpenPage:
    """A page and the API behind it."""

    def __init__(self, page: Live, upstream: Upstream, api_url: str, config: PageConfig) -> None:
        self.url, self.upstream, self.api_url, self.config = page.url, upstream, api_url, config

    @contextlib.contextmanager
    def another(self) -> Iterator[str]:
        """URL of a second process's page over the same database."""
        with Live(build_page(self.config, self.api_url, [])) as page:
            yield page.url


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/page.db"
    url: str = request.getfixturevalue("postgres")
    empty(url)
    return url


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Callable[..., OpenPage]]:
    with contextlib.ExitStack() as stack:

        def make(models: Mapping[str, Says | int], **settings: Any) -> OpenPage:
            upstream = Upstream(models)
            api_url = f"{stack.enter_context(Live(upstream.app)).url}/v1"
            config = PageConfig(**{"database_url": f"sqlite:///{tmp_path}/page.db", **settings})
            page = stack.enter_context(Live(build_page(config, api_url, [])))
            return OpenPage(page, upstream, api_url, config)

        yield make
        while Person.clients:
            Person.clients.pop().close()
