"""What every test shares: how hypothesis runs."""

import os

from hypothesis import HealthCheck, settings

# No deadlines: the machines that run this differ in speed. CI draws the same examples each time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
