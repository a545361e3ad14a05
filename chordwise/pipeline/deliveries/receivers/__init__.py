"""The kinds of receivers of deliveries, one file each; the settings read these modules."""
