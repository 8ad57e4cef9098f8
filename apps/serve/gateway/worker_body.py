"""What a worker elsewhere says when it announces itself; docs/pool.md explains each field."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Url = Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s]+$")]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class WorkerPrices(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    input_usd_per_million_tokens: Usd = 0.0
    output_usd_per_million_tokens: Usd = 0.0


class WorkerBody(BaseModel):
    """What a worker says of itself, once a second."""

    model_config = ConfigDict(extra="forbid", strict=True)
    base_url: Url
    model: str = Field(min_length=1, max_length=256)
    health_url: Url | None = None
    api_key: Annotated[str, Field(max_length=512)] = ""
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    continues: bool = False
    prices: WorkerPrices = WorkerPrices()
    leaves: bool = False
