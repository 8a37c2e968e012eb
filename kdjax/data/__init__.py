"""Images with stable example ids, their order, and their place on the devices."""
