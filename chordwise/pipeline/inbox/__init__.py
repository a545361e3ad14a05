"""The inbox: takes files from watched folders, submits them and delivers them with a note."""
