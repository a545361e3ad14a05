# Creates the database and the roles of Chordwise; PostgreSQL's image runs this script once, during
# initialization. The role `chordwise` is not a superuser: it owns its database, and administers the
# role that `chordwise sql` reads as, whose password it sets for each use. Readers cannot execute
# functions that take locks, write, notify, cancel sessions or raise limits. The password is
# read from a file, because every user of the host can read the arguments of a process.
export CHORDWISE_DATABASE_PASSWORD_FILE="${CHORDWISE_DATABASE_PASSWORD_FILE:-/run/secrets/database_password}"
psql --set=ON_ERROR_STOP=1 --quiet --username="${POSTGRES_USER:-postgres}" <<'SQL'
\set password `cat "$CHORDWISE_DATABASE_PASSWORD_FILE"`
CREATE ROLE chordwise LOGIN CREATEROLE PASSWORD :'password';
CREATE ROLE chordwise_reader NOLOGIN;
GRANT chordwise_reader TO chordwise WITH ADMIN OPTION;
CREATE DATABASE chordwise OWNER chordwise;
\connect chordwise
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
            AND (proname ~ '^(pg_.*advisory|lo_|lowrite)' OR proname IN
                ('set_config', 'pg_logical_emit_message', 'pg_notify',
                 'pg_cancel_backend', 'pg_terminate_backend'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO chordwise, pg_read_all_data', f);
    END LOOP;
END $$;
SQL
