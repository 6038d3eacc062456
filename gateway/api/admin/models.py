"""/admin/models: the routes behind the models' names."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.serving import Serving
from gateway.settings import Model


class ModelView(BaseModel):
    """A model, or a glob of names, as the configuration has it."""

    name: str
    route: list[list[str]] = Field(
        description="Steps in their order; in each the equals to balance over.",
        examples=[[["deepseek/deepseek-chat", "vllm/deepseek-v3"], ["local/smollm2-135m-moe"]]],
    )
    balance: str
    on_stream_break: Literal["rescue", "error"]
    timeouts: dict[str, str]
    retries: dict[str, Any]
    hedge: dict[str, Any] | None


def router(serving: Serving) -> APIRouter:
    """The route over models."""
    routes = APIRouter(prefix="/models")

    @routes.get("", summary="List models and their routes")
    async def list_models() -> list[ModelView]:
        return [_view(name, model) for name, model in serving.settings.models.items()]

    return routes


def _view(name: str, model: Model) -> ModelView:
    return ModelView(
        name=name,
        route=[[str(target) for target in step] for step in model.route],
        balance=model.balance,
        on_stream_break=model.on_stream_break,
        timeouts=model.timeouts.model_dump(mode="json"),
        retries=model.retries.model_dump(mode="json"),
        hedge=None if model.hedge is None else model.hedge.model_dump(mode="json"),
    )
