"""All deployments behind one gateway, each started when first asked for."""

import asyncio
from collections.abc import Iterable

from servolt import registry
from servolt.errors import ServoltError
from servolt.serve.catalogue import Catalogue, Offer
from servolt.serve.digests import Digests
from servolt.serve.jobs import Jobs
from servolt.serve.planning import Planner
from servolt.serve.resident import Resident, SupervisorFactory
from servolt.serve.telemetry import Telemetry
from servolt.serve.webhook import Webhooks

__all__ = ["Fleet"]

READINGS_S = 5.0  # an engine in a long prefill answers after it; a scrape of Prometheus' own default waits for 10 s


class Fleet:
    """What the routes share: names, residents, counters, digests of files."""

    def __init__(
        self,
        catalogue: Catalogue,
        supervise: SupervisorFactory,
        *,
        keep_alive_s: float,
        max_queue: int,
        planner: Planner | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.telemetry = Telemetry()
        self.digests = Digests()
        self.draining = False
        self.planner = planner
        self.jobs = None if planner is None else Jobs(planner, webhooks or Webhooks())
        self._supervise = supervise
        self._keep_alive_s = keep_alive_s
        self._max_queue = max_queue
        self._residents: dict[str, Resident] = {}

    def resident(self, offer: Offer) -> Resident:
        """The one owner of this deployment's queue; made when first asked for."""
        found = self._residents.get(offer.name)
        if found is None:
            supervisor = self._supervise(offer.deployment, offer.model)
            found = Resident(offer, supervisor, keep_alive_s=self._keep_alive_s, max_queue=self._max_queue)
            self._residents[offer.name] = found
        return found

    def loaded(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if resident.loaded]

    def known(self, offer: Offer) -> Resident | None:
        """The resident if it has been asked for already."""
        return self._residents.get(offer.name)

    async def metrics(self) -> bytes:
        """The gateway's counters and those of the engines that run. Starts none, and waits for none for long."""
        for resident in self._residents.values():
            self.telemetry.in_flight.labels(resident.offer.name).set(resident.in_flight)
            self.telemetry.waiting.labels(resident.offer.name).set(resident.waiting)
        loaded = self.loaded()
        pages = await asyncio.gather(*(_readings(resident) for resident in loaded))
        return self.telemetry.page({resident.offer.name: page for resident, page in zip(loaded, pages, strict=True)})

    async def close(self) -> None:
        """Stops every engine. Raises what the first failing stop raised, once all were tried."""
        if self.jobs is not None and self.planner is not None:
            await self.jobs.close()
            await self.planner.close()
        results = await asyncio.gather(
            *(resident.close() for resident in self._residents.values()), return_exceptions=True
        )
        _raise_first(results)


async def _readings(resident: Resident) -> dict[str, float]:
    """Empty where the engine has no page of metrics, has just gone, or does not answer."""
    upstream, server = resident.running(), resident.server
    if upstream is None or server is None or server.command.metrics_path is None:
        return {}
    try:
        async with asyncio.timeout(READINGS_S):
            page = await upstream.page(server.command.metrics_path)
    except (ServoltError, TimeoutError):
        return {}
    if page is None:
        return {}
    return dict(registry.engine(resident.offer.deployment.engine).readings(page.decode("utf-8", "replace")))


def _raise_first(results: Iterable[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result
