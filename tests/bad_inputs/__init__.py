"""Bad inputs by the thousand: see ``judging``."""
