"""What every recipe has."""

from pydantic import BaseModel, ConfigDict, PositiveInt

from stlib.protocol import IMAGE_SIZE


class Recipe(BaseModel):
    """A frozen recipe: a misspelt field is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: PositiveInt = IMAGE_SIZE
    """Side of the network input in pixels."""
