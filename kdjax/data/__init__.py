"""Images with stable example ids, their order, and their transfer to the devices."""

from kdjax.data.datasets import from_hugging_face as from_hugging_face
from kdjax.data.order import batch_at as batch_at
