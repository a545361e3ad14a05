"""The inbox: takes files out of watched folders, submits them, delivers them with a note."""
