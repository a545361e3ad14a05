"""Work that is done by itself: what is due, who carries it out, and the kinds that there are."""
