# Makes the passwords of docker-compose.yml, once, and the addresses that hold them: files in
# secrets/, or in the folder that is named. Only its owner can open that folder; the files in it may
# be read by all, because each container reads them as a user of its own.
set -eu
umask 022
folder="${1:-secrets}"
mkdir -m 700 "$folder"
keep() { printf '%s' "$2" >"$folder/$1"; }
password() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
database=$(password)
valkey=$(password)
keep postgres_password "$(password)"
keep database_password "$database"
keep valkey_password "$valkey"
keep chordwise_database_url "postgresql://chordwise:$database@postgres:5432/chordwise"
keep chordwise_broker_url "redis://:$valkey@valkey:6379/0"
