# Valkey's container runs this: the password goes into a file that only the server's user can read,
# in memory, for everyone on the host can read the arguments of a process. The arguments of this
# script are those of the server.
set -eu
umask 077
file="${TMPDIR:-/tmp}/valkey-password.conf"
escaped=$(sed 's/["\\]/\\&/g' "${VALKEY_PASSWORD_FILE:-/run/secrets/valkey_password}")
printf 'requirepass "%s"\n' "$escaped" >"$file"
exec valkey-server "$file" "$@"
