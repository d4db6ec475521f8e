"""A mule of the user's own, with no request and no signal: it reads a variable as often as it
likes.
"""

import time

from tests.live.site import record, waffle

last = None
while True:
    value = waffle.values.A
    if value != last:
        record("mule", value)
        last = value
    time.sleep(0.005)
