# Starts the server in Valkey's container, with the arguments of this script. The password is passed
# in a file in memory that only the server's user can read, because every user of the host can read
# the arguments of a process.
set -eu
umask 077
file="${TMPDIR:-/tmp}/valkey-password.conf"
escaped=$(sed 's/["\\]/\\&/g' "${VALKEY_PASSWORD_FILE:-/run/secrets/valkey_password}")
printf 'requirepass "%s"\n' "$escaped" >"$file"
exec valkey-server "$file" "$@"
