"""The experts that a server has at the moment, loaded and unloaded while it answers."""

import dataclasses
from collections.abc import Mapping

from hen_jax.core.errors import InputError
from hen_jax.sampling.engine import Engine
from hen_jax.sampling.requests import Request
from hen_jax.serving.refusals import RefusedError
from hen_jax.serving.shelf import (
    Adapter,
    LoadedExpert,
    Shelf,
    content_key,
    mix_of,
    put,
    require_place,
    uses,
)


class Experts:
    """Who stands where on the shelf. It is changed on the engine's thread alone; `named` may be
    read from any."""

    def __init__(self, shelf: Shelf | None):
        self.shelf = shelf
        self.named: Mapping[str, LoadedExpert] = {}

    def load(self, engine: Engine, name: str, adapter: Adapter, source: str) -> LoadedExpert:
        """Puts an adapter into a free place; nothing is compiled.

        Raises:
          InputError: no room for it, or the name is taken.
        """
        if name in self.named:
            raise InputError(f"there is an expert {name!r} already; unload it first")
        if self.shelf is None:
            raise InputError("the server was started without room for experts; give --max-experts")
        require_place(adapter, self.shelf, source)
        place = self._free_place(engine, self.shelf)
        engine.exchange_adapters(put(engine.weights, self.shelf, place, adapter))
        expert = LoadedExpert(name, content_key(adapter), place, adapter.lora, source)
        self.named = {**self.named, name: expert}
        return expert

    def unload(self, name: str) -> None:
        """Nobody can ask it any more; its place is free when its last reply is written.

        Raises:
          InputError: no such expert.
        """
        if name not in self.named:
            raise InputError(f"there is no expert {name!r} to unload")
        self.named = {key: one for key, one in self.named.items() if key != name}

    def prepared(self, request: Request, weights: Mapping[str, float]) -> Request:
        """The request, to be answered by these experts. Raises `RefusedError` where one is gone."""
        for name in weights:
            if name not in self.named:
                raise RefusedError(f"expert {name!r} was unloaded", 404, "model", "model_not_found")
        if self.shelf is None:
            return request
        return dataclasses.replace(request, adapter=mix_of(self.shelf, self.named, weights))

    def _free_place(self, engine: Engine, shelf: Shelf) -> int:
        under_way = [writing.request.adapter for writing in engine.writing.values()]
        under_way += [request.adapter for _, request in engine.waiting]
        taken = {expert.place for expert in self.named.values()}
        for place in range(shelf.places):
            if place not in taken and not any(uses(mix, shelf, place) for mix in under_way):
                return place
        raise InputError(
            f"all {shelf.places} places for experts are taken; unload one, or start the server "
            "with a larger --max-experts"
        )
