"""Images with stable example ids, their order, and their place on the devices."""

from kdjax.data.order import batch_at as batch_at
from kdjax.data.sources import from_hugging_face as from_hugging_face
