# Valkey's container runs this: the password goes into a file that only the server's user can read,
# in memory, for everyone on the host can read the arguments of a process. The arguments of this
# script are those of the server; `valkey-cli` finds the password in the same variable.
set -eu
umask 077
file="${TMPDIR:-/tmp}/valkey-password.conf"
escaped=$(printf '%s' "$REDISCLI_AUTH" | sed 's/["\\]/\\&/g')
printf 'requirepass "%s"\n' "$escaped" >"$file"
exec valkey-server "$file" "$@"
