# PostgreSQL's image runs this once, when it makes the database: Chordwise works as a role without
# any privilege beyond its own database and the role that `chordwise sql` reads as, whose password
# it sets for every use. The password is read from the environment, not from an argument, which
# every user of the host can read.
psql --set=ON_ERROR_STOP=1 --quiet --username="${POSTGRES_USER:-postgres}" <<'SQL'
\getenv password CHORDWISE_DATABASE_PASSWORD
CREATE ROLE chordwise LOGIN CREATEROLE PASSWORD :'password';
CREATE ROLE chordwise_reader NOLOGIN;
GRANT chordwise_reader TO chordwise WITH ADMIN OPTION;
CREATE DATABASE chordwise OWNER chordwise;
SQL
