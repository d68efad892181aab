"""From the user's folder to crops on the device: find, check, decode once, cache, sample, view, mix."""
