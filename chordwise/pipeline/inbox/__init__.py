"""The inbox: files are taken out of watched folders, analyzed, and delivered with a note."""
