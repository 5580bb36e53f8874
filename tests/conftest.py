"""What all tests share."""

from hypothesis import settings

settings.register_profile("pik", deadline=None)  # no test depends on how fast a machine is
settings.load_profile("pik")
